# Question:  Does a store to the head struct page reach the frame that backs it when the remap is over?
# Arguments: rdi = address of a word in a head struct page
#            rsi = value to store there
# Results:   none
# Labels:    write, done

write:
    mov [rdi], rsi
done:
    hlt

# Question:  Does a store to a tail struct page that is mapped read-only fault with error code 3?
# Arguments: rdi = address of a word in a tail struct page
#            rsi = value to store there
# Results:   none
# Labels:    write, done

write:
    mov [rdi], rsi
done:
    hlt

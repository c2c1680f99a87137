# Question:  Do a load, a store and a load of one word by one CPU all reach the same frame?
# Arguments: rdi = address of the word
#            rsi = value to store there
# Results:   rax = the value before the store
#            rbx = the value read back after it
# Labels:    read, gap, write, read_back, done

read:
    mov rax, [rdi]
# A place to stop where the load has filled the TLB and the store has not begun.
gap:
    nop
write:
    mov [rdi], rsi
read_back:
    mov rbx, [rdi]
done:
    hlt

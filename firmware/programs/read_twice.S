# Question:  Can two loads of one word give two values although nobody stored to that word?
# Arguments: rdi = address of the word
# Results:   rax = the value of the first load
#            rbx = the value of the second load
# Labels:    first, gap, second, done

first:
    mov rax, [rdi]
# A place to stop where the first value is known and the second load has not begun.
gap:
    nop
second:
    mov rbx, [rdi]
done:
    hlt

# Question:  What does this CPU see in each vmemmap page of a folio while the kernel remaps them?
# Arguments: rdi = address of the folio's first struct page, the start of a vmemmap page
#            rsi = number of 4 KiB vmemmap pages to look at; 0 looks at none
#            rdx = buffer of two quadwords a page: flags, then compound_head
# Results:   rdx = address behind the last quadword written
# Labels:    start, read_flags, read_compound_head, done

start:
    test rsi, rsi
    je done
read_flags:
    mov rax, [rdi]
    mov [rdx], rax
read_compound_head:
    mov rax, [rdi + 8]
    mov [rdx + 8], rax
    add rdi, 4096
    add rdx, 16
    dec rsi
    jne read_flags
done:
    hlt

# Question:  Which heads does a PFN walker find in a range of struct pages while they are remapped?
# Arguments: rdi = address of the first struct page
#            rsi = number of struct pages to look at; 0 looks at none
#            rdx = address of the 64-bit word that stands for hugetlb_optimize_vmemmap_key; nonzero is enabled
#            rcx = address of this CPU's 64-bit RCU nesting word
#            r8 = buffer of one quadword a struct page: the address of its head
# Results:   r8 = address behind the last quadword written
# Labels:    start, next_page, read_own, test_key, read_flags, read_next, itself, answer, leave, done

start:
    test rsi, rsi
    je done
# One RCU section a struct page. No LOCK on the nesting word: only this CPU writes it.
next_page:
    inc qword ptr [rcx]
# compound_head(), inlined: a call would need a stack.
read_own:
    mov rax, [rdi + 8]                  # page->compound_head
    test al, 1
    je test_key
    dec rax
    jmp answer
test_key:
    cmp qword ptr [rdx], 0
    je itself
    test edi, 0xfff
    jne itself
read_flags:
    mov r9, [rdi]
    test r9b, 0x40                      # PG_head is bit 6
    je itself
read_next:
    mov rax, [rdi + 72]                 # page[1].compound_head
    test al, 1
    je itself
    dec rax
    jmp answer
itself:
    mov rax, rdi
answer:
    mov [r8], rax
leave:
    dec qword ptr [rcx]
    add rdi, 64
    add r8, 8
    dec rsi
    jne next_page
done:
    hlt

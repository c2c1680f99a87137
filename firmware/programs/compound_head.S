# Question:  Which head does compound_head() name for a struct page while its vmemmap page is remapped?
# Arguments: rdi = address of the struct page
#            rsi = address of the 64-bit word that stands for hugetlb_optimize_vmemmap_key; nonzero is enabled
# Results:   rax = address of the head struct page
# Labels:    read_own, test_key, read_flags, read_next, itself, done

read_own:
    mov rax, [rdi + 8]                  # page->compound_head
    test al, 1
    je test_key
    dec rax
    jmp done
# From here on page_fixed_fake_head().
test_key:
    cmp qword ptr [rsi], 0
    je itself
    test edi, 0xfff
    jne itself
read_flags:
    mov rcx, [rdi]
    test cl, 0x40                       # PG_head is bit 6
    je itself
read_next:
    mov rax, [rdi + 72]                 # page[1].compound_head
    test al, 1
    je itself
    dec rax
    jmp done
itself:
    mov rax, rdi
done:
    hlt

# Question:  What does /proc/kpageflags say of struct pages while their vmemmap is remapped?
# Arguments: rdi = address of the first struct page
#            rsi = number of struct pages to look at; 0 looks at none
#            rdx = address of the 64-bit word that stands for hugetlb_optimize_vmemmap_key; nonzero is enabled
#            r8 = buffer of one quadword a struct page: KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL and KPF_HUGE
# Results:   r8 = address behind the last quadword written
#            r10 = how many struct pages were reported as tails
# Labels:    start, read_own, test_key, read_flags, read_next, itself, read_folio, tail, read_type, answer, done
#
# stable_page_flags() of fs/proc/page.c, as far as it says what kind of compound page it is:
#
#     folio = page_folio(page);
#     k = folio->flags;
#     if (page == &folio->page)
#             u |= kpf_copy_bit(k, KPF_COMPOUND_HEAD, PG_head);
#     else
#             u |= 1 << KPF_COMPOUND_TAIL;
#     if (folio_test_hugetlb(folio))
#             u |= 1 << KPF_HUGE;
#
# It takes no reference and is in no RCU section: it only reads, and what it reads may change under it.

start:
    xor r10d, r10d
    test rsi, rsi
    je done
# compound_head(), inlined: a call would need a stack.
read_own:
    mov rax, [rdi + 8]                  # page->compound_head
    test al, 1
    je test_key
    dec rax
    jmp read_folio
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
    jmp read_folio
itself:
    mov rax, rdi
read_folio:
    mov r9, [rax]                       # folio->flags
    xor ecx, ecx
    cmp rax, rdi
    jne tail
    test r9b, 0x40
    je read_type
    or ecx, 0x8000                      # KPF_COMPOUND_HEAD is bit 15
    jmp read_type
tail:
    or ecx, 0x10000                     # KPF_COMPOUND_TAIL is bit 16
    inc r10
read_type:
    mov r9d, [rax + 48]                 # folio->page_type, its upper byte
    shr r9d, 24
    cmp r9d, 0xf4                       # PGTY_hugetlb
    jne answer
    or ecx, 0x20000                     # KPF_HUGE is bit 17
answer:
    mov [r8], rcx
    add rdi, 64
    add r8, 8
    dec rsi
    jne read_own
done:
    hlt

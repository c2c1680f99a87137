# Question:  Does GUP-fast, which finds a folio in page tables without a lock, stay clear of one that is remapped?
# Arguments: rdi = address of the page-table entry: a 64-bit word with the struct page's address, 0 if none
#            rsi = address of the 64-bit word that stands for hugetlb_optimize_vmemmap_key; nonzero is enabled
#            rdx = address of this CPU's 64-bit RCU nesting word
# Results:   rax = address of the head a reference was taken on, 0 if none was
# Labels:    disable, read_entry, read_own, test_key, read_flags, read_next, itself, enter, test_key_again, read_head_flags, test_fake, read_count, read_again, unless_zero, try, leave, check_entry, drop, refuse, none, enable, done
#
# gup_fast_pmd_leaf() of mm/gup.c for one page of a huge one: interrupts off, the entry, page_folio(),
# folio_ref_try_add() as v6.10 to v6.14 have it, and the entry again: if it has changed, the reference is given
# back. try_get_folio() also looks whether the page still belongs to the folio; that is left out, nobody here
# splits one. Freeing a folio whose last reference that was is not modelled.

disable:
    cli
read_entry:
    mov r8, [rdi]                       # ptep_get_lockless()
    test r8, r8
    je none
# compound_head(), inlined: a call would need a stack.
read_own:
    mov rbx, [r8 + 8]                   # page->compound_head
    test bl, 1
    je test_key
    dec rbx
    jmp enter
test_key:
    cmp qword ptr [rsi], 0
    je itself
    test r8d, 0xfff
    jne itself
read_flags:
    mov r9, [r8]
    test r9b, 0x40                      # PG_head is bit 6
    je itself
read_next:
    mov rbx, [r8 + 72]                  # page[1].compound_head
    test bl, 1
    je itself
    dec rbx
    jmp enter
itself:
    mov rbx, r8
# page_ref_add_unless() on the head. No LOCK on the nesting word: only this CPU writes it.
enter:
    inc qword ptr [rdx]
test_key_again:
    cmp qword ptr [rsi], 0
    je read_count
    test ebx, 0xfff
    jne read_count
read_head_flags:
    mov rax, [rbx]
    test al, 0x40
    je read_count
test_fake:
    mov rax, [rbx + 72]
    test al, 1
    je read_count
    dec rax
    cmp rax, rbx
    jne refuse
read_count:
    mov eax, [rbx + 52]                 # page_ref_count()
    test eax, eax
    je refuse
read_again:
    mov eax, [rbx + 52]
unless_zero:
    test eax, eax
    je refuse
    lea ecx, [rax + 1]
try:
    lock cmpxchg dword ptr [rbx + 52], ecx
    jne unless_zero
leave:
    dec qword ptr [rdx]
    mov rax, rbx
check_entry:
    cmp [rdi], r8                       # ptep_get()
    je enable
drop:
    lock dec dword ptr [rbx + 52]
    jmp none
refuse:
    dec qword ptr [rdx]
none:
    xor eax, eax
enable:
    sti
done:
    hlt

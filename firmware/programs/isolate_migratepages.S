# Question:  Does compaction, which takes a reference on any page it comes to, stay clear of a remap?
# Arguments: rdi = address of the first struct page
#            rsi = number of struct pages to look at; 0 looks at none
#            rdx = address of the 64-bit word that stands for hugetlb_optimize_vmemmap_key; nonzero is enabled
#            rcx = address of this CPU's 64-bit RCU nesting word
#            r8 = buffer of one quadword a struct page: its flags, or all ones where no reference was to be had
# Results:   r8 = address behind the last quadword written
# Labels:    start, enter, test_key, read_flags, test_fake, read_count, read_again, unless_zero, try, leave, look, drop, refuse, next_page, done
#
# What isolate_migratepages_block() of mm/compaction.c does with a page that it cannot tell to be free or
# compound beforehand: folio_get_nontail_page(), that is get_page_unless_zero() as v6.10 to v6.14 have it, a look
# at the flags (PG_lru), folio_put(). The look and the put come after the RCU section: the reference is to cover
# them. Freeing a page whose last reference that was is not modelled.

start:
    test rsi, rsi
    je done
# No LOCK on the nesting word: only this CPU writes it.
enter:
    inc qword ptr [rcx]
test_key:
    cmp qword ptr [rdx], 0
    je read_count
    test edi, 0xfff
    jne read_count
read_flags:
    mov rax, [rdi]
    test al, 0x40                       # PG_head is bit 6
    je read_count
test_fake:
    mov rax, [rdi + 72]                 # page[1].compound_head
    test al, 1
    je read_count
    dec rax
    cmp rax, rdi
    jne refuse
read_count:
    mov eax, [rdi + 52]                 # page_ref_count()
    test eax, eax
    je refuse
read_again:
    mov eax, [rdi + 52]
unless_zero:
    test eax, eax
    je refuse
    lea r9d, [rax + 1]
try:
    lock cmpxchg dword ptr [rdi + 52], r9d
    jne unless_zero
leave:
    dec qword ptr [rcx]
look:
    mov rax, [rdi]
    mov [r8], rax
drop:
    lock dec dword ptr [rdi + 52]
    jmp next_page
refuse:
    dec qword ptr [rcx]
    mov qword ptr [r8], -1
next_page:
    add rdi, 64
    add r8, 8
    dec rsi
    jne enter
done:
    hlt

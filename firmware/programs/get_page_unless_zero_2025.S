# Question:  Is taking a reference by PFN safe when the count is read before the fake-head test?
# Arguments: rdi = address of the struct page
#            rsi = address of the 64-bit word that stands for hugetlb_optimize_vmemmap_key; nonzero is enabled
#            rdx = address of this CPU's 64-bit RCU nesting word
# Results:   rax = 1 if a reference was taken, 0 if not
# Labels:    enter, test_key, read_count, test_key_again, read_flags, test_fake, read_again, unless_zero, try, refuse, leave, done
#
# page_ref_add_unless(page, 1, 0) since "mm/hugetlb_vmemmap: fix memory loads ordering" (2025):
#
#     rcu_read_lock();
#     if (page_count_writable(page, u))
#             ret = atomic_add_unless(&page->_refcount, nr, u);
#     rcu_read_unlock();
#
# page_count_writable() is true when the key is off; else it reads the count, gives up when that is u, and only
# then asks page_fixed_fake_head(), which tests the key again.

# No LOCK on the nesting word: only this CPU writes it.
enter:
    inc qword ptr [rdx]
test_key:
    cmp qword ptr [rsi], 0
    je read_again
read_count:
    mov eax, [rdi + 52]                 # atomic_read_acquire(): on x86 a load like any other
    test eax, eax
    je refuse
test_key_again:
    cmp qword ptr [rsi], 0
    je read_again
    test edi, 0xfff
    jne read_again
read_flags:
    mov rax, [rdi]
    test al, 0x40                       # PG_head is bit 6
    je read_again
# The next struct page is a tail after a real head as after a fake one: only where it points tells them apart.
test_fake:
    mov rax, [rdi + 72]                 # page[1].compound_head
    test al, 1
    je read_again
    dec rax
    cmp rax, rdi
    jne refuse
# atomic_add_unless() does not trust the value just read: it loads the counter itself.
read_again:
    mov eax, [rdi + 52]
unless_zero:
    test eax, eax
    je refuse
    lea ecx, [rax + 1]
# A failed compare leaves the counter's new value in eax. Failed or not, this is a write access.
try:
    lock cmpxchg dword ptr [rdi + 52], ecx
    jne unless_zero
    mov eax, 1
    jmp leave
refuse:
    xor eax, eax
leave:
    dec qword ptr [rdx]
done:
    hlt

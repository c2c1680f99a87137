# Question:  What did taking a reference by PFN look like before it knew of vmemmap that is remapped?
# Arguments: rdi = address of the struct page
# Results:   rax = 1 if a reference was taken, 0 if not
# Labels:    read_count, unless_zero, try, refuse, done
#
# page_ref_add_unless(page, 1, 0) as Linux had it up to v6.9:
#
#     ret = atomic_add_unless(&page->_refcount, nr, u);
#
# No RCU section and no look at what the struct page is: nobody can wait for it.

read_count:
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
    jmp done
refuse:
    xor eax, eax
done:
    hlt

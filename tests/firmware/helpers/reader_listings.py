"""Listings, written by hand, of the programs that take references or read flags by PFN."""

READERS = {
    "get_page_unless_zero_v6_9": """
        read_count:
            mov eax, dword ptr [rdi + 0x34]
        unless_zero:
            test eax, eax
            je refuse
            lea ecx, [rax + 1]
        try:
            lock cmpxchg dword ptr [rdi + 0x34], ecx
            jne unless_zero
            mov eax, 1
            jmp done
        refuse:
            xor eax, eax
        done:
            hlt
    """,
    "get_page_unless_zero_2025": """
        enter:
            inc qword ptr [rdx]
        test_key:
            cmp qword ptr [rsi], 0
            je read_again
        read_count:
            mov eax, dword ptr [rdi + 0x34]
            test eax, eax
            je refuse
        test_key_again:
            cmp qword ptr [rsi], 0
            je read_again
            test edi, 0xfff
            jne read_again
        read_flags:
            mov rax, qword ptr [rdi]
            test al, 0x40
            je read_again
        test_fake:
            mov rax, qword ptr [rdi + 0x48]
            test al, 1
            je read_again
            dec rax
            cmp rax, rdi
            jne refuse
        read_again:
            mov eax, dword ptr [rdi + 0x34]
        unless_zero:
            test eax, eax
            je refuse
            lea ecx, [rax + 1]
        try:
            lock cmpxchg dword ptr [rdi + 0x34], ecx
            jne unless_zero
            mov eax, 1
            jmp leave
        refuse:
            xor eax, eax
        leave:
            dec qword ptr [rdx]
        done:
            hlt
    """,
    "kpageflags": """
        start:
            xor r10d, r10d
            test rsi, rsi
            je done
        read_own:
            mov rax, qword ptr [rdi + 8]
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
            mov r9, qword ptr [rdi]
            test r9b, 0x40
            je itself
        read_next:
            mov rax, qword ptr [rdi + 0x48]
            test al, 1
            je itself
            dec rax
            jmp read_folio
        itself:
            mov rax, rdi
        read_folio:
            mov r9, qword ptr [rax]
            xor ecx, ecx
            cmp rax, rdi
            jne tail
            test r9b, 0x40
            je read_type
            or ecx, 0x8000
            jmp read_type
        tail:
            or ecx, 0x10000
            inc r10
        read_type:
            mov r9d, dword ptr [rax + 0x30]
            shr r9d, 0x18
            cmp r9d, 0xf4
            jne answer
            or ecx, 0x20000
        answer:
            mov qword ptr [r8], rcx
            add rdi, 0x40
            add r8, 8
            dec rsi
            jne read_own
        done:
            hlt
    """,
    "isolate_migratepages": """
        start:
            test rsi, rsi
            je done
        enter:
            inc qword ptr [rcx]
        test_key:
            cmp qword ptr [rdx], 0
            je read_count
            test edi, 0xfff
            jne read_count
        read_flags:
            mov rax, qword ptr [rdi]
            test al, 0x40
            je read_count
        test_fake:
            mov rax, qword ptr [rdi + 0x48]
            test al, 1
            je read_count
            dec rax
            cmp rax, rdi
            jne refuse
        read_count:
            mov eax, dword ptr [rdi + 0x34]
            test eax, eax
            je refuse
        read_again:
            mov eax, dword ptr [rdi + 0x34]
        unless_zero:
            test eax, eax
            je refuse
            lea r9d, [rax + 1]
        try:
            lock cmpxchg dword ptr [rdi + 0x34], r9d
            jne unless_zero
        leave:
            dec qword ptr [rcx]
        look:
            mov rax, qword ptr [rdi]
            mov qword ptr [r8], rax
        drop:
            lock dec dword ptr [rdi + 0x34]
            jmp next_page
        refuse:
            dec qword ptr [rcx]
            mov qword ptr [r8], 0xffffffffffffffff
        next_page:
            add rdi, 0x40
            add r8, 8
            dec rsi
            jne enter
        done:
            hlt
    """,
    "gup_fast": """
        disable:
            cli
        read_entry:
            mov r8, qword ptr [rdi]
            test r8, r8
            je none
        read_own:
            mov rbx, qword ptr [r8 + 8]
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
            mov r9, qword ptr [r8]
            test r9b, 0x40
            je itself
        read_next:
            mov rbx, qword ptr [r8 + 0x48]
            test bl, 1
            je itself
            dec rbx
            jmp enter
        itself:
            mov rbx, r8
        enter:
            inc qword ptr [rdx]
        test_key_again:
            cmp qword ptr [rsi], 0
            je read_count
            test ebx, 0xfff
            jne read_count
        read_head_flags:
            mov rax, qword ptr [rbx]
            test al, 0x40
            je read_count
        test_fake:
            mov rax, qword ptr [rbx + 0x48]
            test al, 1
            je read_count
            dec rax
            cmp rax, rbx
            jne refuse
        read_count:
            mov eax, dword ptr [rbx + 0x34]
            test eax, eax
            je refuse
        read_again:
            mov eax, dword ptr [rbx + 0x34]
        unless_zero:
            test eax, eax
            je refuse
            lea ecx, [rax + 1]
        try:
            lock cmpxchg dword ptr [rbx + 0x34], ecx
            jne unless_zero
        leave:
            dec qword ptr [rdx]
            mov rax, rbx
        check_entry:
            cmp qword ptr [rdi], r8
            je enable
        drop:
            lock dec dword ptr [rbx + 0x34]
            jmp none
        refuse:
            dec qword ptr [rdx]
        none:
            xor eax, eax
        enable:
            sti
        done:
            hlt
    """,
}

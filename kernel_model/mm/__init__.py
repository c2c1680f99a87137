"""Memory as Linux has it: struct pages, page tables, the page allocator, the fault handler."""

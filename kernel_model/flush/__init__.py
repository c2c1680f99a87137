"""Flush policies: what `flush_tlb_all` and `flush_tlb_kernel_range` do."""

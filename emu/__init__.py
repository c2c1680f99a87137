"""The machine: physical memory, page tables, TLBs, CPUs and their interrupts.

Hardware only: nothing in this package has heard of Linux. What software must supply (interrupt and
trap handlers, page tables) it receives as data. Read in this order: addr, paging/pte, memory,
paging/walk, paging/tlb, mmu, cpu/ops, cpu/cpu, machine.
"""

"""Linux's HugeTLB Vmemmap Optimization and the kernel primitives it stands on, as routines of the machine.

Kernel things keep their kernel names, at the revision of v6.12. Routines are `async`: each `await` of an op
is a scheduling point. Read in this order: layout, page, boot, hugetlb_vmemmap.
"""

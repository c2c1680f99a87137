"""The pool of huge pages, which calls HVO, and memory errors (mm/hugetlb.c, mm/memory-failure.c)."""

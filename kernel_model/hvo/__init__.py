"""The port of mm/hugetlb_vmemmap.c."""

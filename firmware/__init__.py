"""Small x86_64 guest programs, assembled and described as values.

`firmware.catalog` has the programs that come with the project, `firmware.load` turns a user's own source
text into the same kind of value. Nothing here knows a machine, a page table or a kernel: a program is
bytes, an address they are linked at, the names of places in them, and a description of the registers.
"""

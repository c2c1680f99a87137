"""The five stories that `hvolab demo` tells: what it is about, on one screen and a half."""

"""llama.cpp, through llama-cpp-python 0.3.36 (llama.cpp 0c1e57098), always in a child process.

The parent's side: `child` (start, listen, turn death into typed errors) and one module for each job: `probe`,
`quantize`, `smoke`, `speed`. The child's side: `worker` (the program), `bindings` (the only import of llama_cpp) and
the functions in `jobs`.
"""

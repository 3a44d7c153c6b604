// Preloaded by bench-parity into both programs: operator new[] gives whole pages.
//
// ggml-cpu takes its work buffer, from which every matrix multiplication reads, with new uint8_t[].  malloc puts it on a
// multiple of 16 bytes, by chance on one of 32 or not, and that is 5 % of a prompt's speed in either program (see
// docs/lab-notes.md).
#include <cstdlib>
#include <new>

void *operator new[](std::size_t size) {
  void *found = nullptr;
  if (posix_memalign(&found, 4096, size ? size : 1)) throw std::bad_alloc();
  return found;
}

void operator delete[](void *given) noexcept { std::free(given); }

void operator delete[](void *given, std::size_t) noexcept { std::free(given); }

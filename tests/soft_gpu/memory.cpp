// The memory of the software GPU, for tests only.
//
// The memory is mapped twice: once without access rights, at the addresses that the program gets, because a program
// cannot touch a real GPU's memory either; and once readable and writable, for the software GPU. A program that accesses
// GPU memory by mistake ends with SIGSEGV.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include <sys/mman.h>
#include <unistd.h>

#include "soft_gpu.h"

namespace {

// Alignment of cudaMalloc, in bytes.
constexpr size_t ALIGNMENT = 512;

// An allocated piece, and the numbers of libtorch's last operations that read it and that wrote it.
struct Piece {
  size_t length;
  uint64_t read = 0;
  uint64_t written = 0;
};

struct Memory {
  char *device;
  char *host;
  size_t bytes;
  std::mutex lock;
  // Lengths of the free pieces, and the allocated pieces, by offset.
  std::map<size_t, size_t> free;
  std::map<size_t, Piece> taken;
  size_t in_use = 0;

  Memory() {
    const char *mib = std::getenv("SOFT_GPU_MIB");
    bytes = (mib ? std::strtoull(mib, nullptr, 10) : 4096) << 20;
    // The kernel allocates a page when it is first written.
    const int file = memfd_create("software GPU", MFD_CLOEXEC);
    void *hidden = MAP_FAILED, *seen = MAP_FAILED;
    if (file >= 0 && ftruncate(file, static_cast<off_t>(bytes)) == 0) {
      hidden = mmap(nullptr, bytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE, file, 0);
      seen = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
    }
    if (hidden == MAP_FAILED || seen == MAP_FAILED) {
      std::perror("software GPU: memory");
      std::abort();
    }
    close(file);
    device = static_cast<char *>(hidden);
    host = static_cast<char *>(seen);
    free[0] = bytes;
  }
};

// The allocated piece that contains an address of either mapping, or null. The caller holds the lock.
Piece *piece(Memory &m, const void *at) {
  const char *address = static_cast<const char *>(at);
  for (const char *start : {m.device, m.host}) {
    if (address >= start && address < start + m.bytes) {
      const size_t offset = address - start;
      const auto after = m.taken.upper_bound(offset);
      if (after != m.taken.begin()) {
        auto &[begin, found] = *std::prev(after);
        return offset < begin + found.length ? &found : nullptr;
      }
    }
  }
  return nullptr;
}

// Never destroyed: tensors may be freed as late as at exit.
Memory &memory() {
  static Memory *memory = new Memory;
  return *memory;
}

} // namespace

extern "C" {

void *soft_gpu_allocate(size_t bytes) {
  Memory &m = memory();
  const size_t needed = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  if (needed == 0) {
    return nullptr;
  }
  std::lock_guard<std::mutex> held(m.lock);
  for (auto at = m.free.begin(); at != m.free.end(); ++at) {
    const auto [offset, length] = *at;
    if (length < needed) {
      continue;
    }
    m.free.erase(at);
    if (length > needed) {
      m.free[offset + needed] = length - needed;
    }
    m.taken[offset] = {needed};
    m.in_use += needed;
    return m.device + offset;
  }
  return nullptr;
}

void soft_gpu_free(void *at) {
  if (at == nullptr) {
    return;
  }
  Memory &m = memory();
  std::lock_guard<std::mutex> held(m.lock);
  const size_t offset = static_cast<char *>(at) - m.device;
  const auto found = m.taken.find(offset);
  if (found == m.taken.end()) {
    std::fprintf(stderr, "software GPU: freed an address that is not allocated\n");
    std::abort();
  }
  size_t length = found->second.length;
  m.taken.erase(found);
  m.in_use -= length;
  auto after = m.free.lower_bound(offset);
  if (after != m.free.end() && after->first == offset + length) {
    length += after->second;
    after = m.free.erase(after);
  }
  if (after != m.free.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second == offset) {
      before->second += length;
      return;
    }
  }
  m.free[offset] = length;
}

void *soft_gpu_host(const void *at) {
  const Memory &m = memory();
  const char *address = static_cast<const char *>(at);
  if (address >= m.device && address < m.device + m.bytes) {
    return m.host + (address - m.device);
  }
  return const_cast<void *>(at);
}

void soft_gpu_note(const void *at, bool writes, uint64_t number) {
  Memory &m = memory();
  std::lock_guard<std::mutex> held(m.lock);
  if (Piece *found = piece(m, at)) {
    (writes ? found->written : found->read) = number;
  }
}

uint64_t soft_gpu_last(const void *at, bool writes) {
  Memory &m = memory();
  std::lock_guard<std::mutex> held(m.lock);
  const Piece *found = piece(m, at);
  if (found == nullptr) {
    return 0;
  }
  return writes ? std::max(found->read, found->written) : found->written;
}

size_t soft_gpu_bytes(size_t *free) {
  Memory &m = memory();
  std::lock_guard<std::mutex> held(m.lock);
  *free = m.bytes - m.in_use;
  return m.bytes;
}
}

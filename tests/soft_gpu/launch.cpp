// The software driver's modules and launches: what the software NVRTC compiled is loaded as a shared library, and a kernel runs on
// the second mapping of the GPU's memory.
//
// In the default stream a kernel executes at once on the calling thread, as libtorch's operations do, and counts as one of them.
// In any other stream it is queued, and must have waited for libtorch's operations on the memory that it uses.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include "soft_gpu.h"

struct CUmod_st {
  void *library;
};

// See kernels/cuda/emulation.h.
struct CUfunc_st {
  std::string name;
  void (*visit)(void *const *, void (*)(void *, const void *, bool), void *);
  void *(*bind)(void *const *, void *(*)(const void *));
  void (*emulate)(void *, const unsigned *, const unsigned *);
};

namespace {

// A launch on its way.
struct Launch {
  const CUfunc_st &function;
  void *bound;
  unsigned grid[3], block[3];

  void run() const { function.emulate(bound, grid, block); }
};

// A kernel must not get an address of the host: a real GPU would fail.
void *on_gpu(const void *at) {
  void *const host = soft_gpu_host(at);
  if (at != nullptr && host == at) {
    std::fprintf(stderr, "software GPU: a kernel was given an address that is not in the GPU's memory\n");
    std::abort();
  }
  return host;
}

// A declared use of memory, in the default stream (operation `number`) or in another.
struct Use {
  CUstream stream;
  uint64_t number;
  const char *name;

  static void visit(void *context, const void *pointer, bool writes) {
    const Use &use = *static_cast<Use *>(context);
    if (pointer == nullptr) {
      return;
    }
    if (use.stream == nullptr) {
      soft_gpu_note(pointer, writes, use.number);
    } else {
      soft_gpu_uses(use.stream, pointer, writes, use.name);
    }
  }
};

} // namespace

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  SoftCubin header;
  std::memcpy(&header, image, sizeof(header));
  if (std::memcmp(header.magic, SOFT_CUBIN_MAGIC, sizeof(header.magic)) != 0) {
    return CUDA_ERROR_INVALID_IMAGE;
  }
  const int file = memfd_create("kernels", MFD_CLOEXEC);
  const char *library = static_cast<const char *>(image) + sizeof(header);
  for (size_t written = 0; file >= 0 && written < header.bytes;) {
    const ssize_t more = write(file, library + written, header.bytes - written);
    if (more <= 0) {
      return CUDA_ERROR_INVALID_IMAGE;
    }
    written += static_cast<size_t>(more);
  }
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  void *const loaded = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  // The file stays open: another one of the same name would be taken for this library.
  if (loaded == nullptr) {
    std::fprintf(stderr, "software GPU: %s\n", dlerror());
    return CUDA_ERROR_INVALID_IMAGE;
  }
  *module = new CUmod_st{loaded};
  return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  auto made = std::make_unique<CUfunc_st>();
  made->name = name;
  const auto find = [&](auto &place, const std::string &symbol) {
    place = reinterpret_cast<std::remove_reference_t<decltype(place)>>(dlsym(module->library, symbol.c_str()));
    return place != nullptr;
  };
  const bool found = find(made->visit, "visit_" + made->name) && find(made->bind, "bind_" + made->name) &&
                     find(made->emulate, "fovea_emulate");
  if (!found) {
    return CUDA_ERROR_NOT_FOUND;
  }
  *function = made.release();
  return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned, CUstream stream, void **parameters, void **) {
  if (grid_x == 0 || grid_y == 0 || grid_z == 0 || block_x * block_y * block_z == 0 || block_x * block_y * block_z > 1024) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Use use{stream, 0, function->name.c_str()};
  if (stream == nullptr) {
    use.number = soft_gpu_compute(use.name);
  }
  function->visit(parameters, &Use::visit, &use);
  const Launch launch{*function, function->bind(parameters, &on_gpu), {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}};
  if (stream == nullptr) {
    launch.run();
    return CUDA_SUCCESS;
  }
  const auto run = [](void *argument) {
    const std::unique_ptr<Launch> owned(static_cast<Launch *>(argument));
    owned->run();
  };
  return soft_gpu_enqueue(stream, run, new Launch(launch));
}

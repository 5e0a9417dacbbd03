// A software libnvrtc.so.13, for tests on machines without a GPU: it compiles kernels with the machine's C++ compiler, through
// kernels/cuda/emulation.h. Its "cubin" is a shared library behind a header (see soft_gpu.h), which the software driver loads.
//
// Environment variables (defaults in parentheses):
//   CXX                  the compiler (c++)
//   SOFT_GPU_NO_NVRTC    if it is set, every compilation fails

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>

#include <sys/wait.h>
#include <unistd.h>

#include "soft_gpu.h"

struct nvrtcProgram_st {
  std::string source, log, cubin;
};

namespace {

std::string contents(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// Runs the compiler in `folder` on its kernels.cpp; the messages go to the file `log`.
bool compile(const std::string &folder, const std::string &element) {
  const char *compiler = std::getenv("CXX");
  const std::string command = std::string(compiler ? compiler : "c++") + " -O1 -std=c++17 -fPIC -shared -ffp-contract=off -w -DELEMENT=" +
                              element + " -include " SOFT_GPU_EMULATION " -o '" + folder + "/kernels.so' '" + folder +
                              "/kernels.cpp' > '" + folder + "/log' 2>&1";
  const int status = std::system(command.c_str());
  return status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

} // namespace

nvrtcResult nvrtcVersion(int *major, int *minor) {
  *major = 13;
  *minor = 0;
  return NVRTC_SUCCESS;
}

const char *nvrtcGetErrorString(nvrtcResult result) {
  return result == NVRTC_SUCCESS ? "NVRTC_SUCCESS" : result == NVRTC_ERROR_COMPILATION ? "NVRTC_ERROR_COMPILATION" : "NVRTC error";
}

nvrtcResult nvrtcCreateProgram(nvrtcProgram *program, const char *source, const char *, int headers, const char *const *,
                               const char *const *) {
  if (headers != 0) {
    return NVRTC_ERROR_INVALID_INPUT;
  }
  *program = new nvrtcProgram_st{source, "", ""};
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcDestroyProgram(nvrtcProgram *program) {
  delete *program;
  *program = nullptr;
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int count, const char *const *options) {
  std::string element;
  for (int i = 0; i < count; ++i) {
    const char *macro = "--define-macro=ELEMENT=";
    if (std::strncmp(options[i], macro, std::strlen(macro)) == 0) {
      element = options[i] + std::strlen(macro);
    }
  }
  if (std::getenv("SOFT_GPU_NO_NVRTC") != nullptr) {
    program->log = "SOFT_GPU_NO_NVRTC is set";
    return NVRTC_ERROR_COMPILATION;
  }
  const char *temporary = std::getenv("TMPDIR");
  std::string folder = std::string(temporary ? temporary : "/tmp") + "/soft-nvrtc-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) {
    return NVRTC_ERROR_COMPILATION;
  }
  std::ofstream(folder + "/kernels.cpp", std::ios::binary) << program->source;
  const bool compiled = compile(folder, element);
  program->log = contents(folder + "/log");
  if (compiled) {
    const std::string library = contents(folder + "/kernels.so");
    SoftCubin header = {};
    std::memcpy(header.magic, SOFT_CUBIN_MAGIC, sizeof(header.magic));
    header.bytes = library.size();
    program->cubin = std::string(reinterpret_cast<const char *>(&header), sizeof(header)) + library;
  }
  for (const char *file : {"/kernels.cpp", "/kernels.so", "/log"}) {
    std::remove((folder + file).c_str());
  }
  rmdir(folder.c_str());
  return compiled ? NVRTC_SUCCESS : NVRTC_ERROR_COMPILATION;
}

nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t *bytes) {
  *bytes = program->log.size() + 1;
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char *log) {
  std::memcpy(log, program->log.c_str(), program->log.size() + 1);
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, size_t *bytes) {
  *bytes = program->cubin.size();
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char *cubin) {
  std::memcpy(cubin, program->cubin.data(), program->cubin.size());
  return NVRTC_SUCCESS;
}

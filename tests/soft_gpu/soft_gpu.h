// Declarations that the parts of the software GPU share, for tests only: the few types and functions of CUDA's driver and
// of NCCL that the worker uses (no CUDA headers are needed to build this), and the functions by which the parts call each
// other.

#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {
#pragma GCC visibility push(default)

// CUDA's driver: libcuda.so.1, implemented in driver.cpp.

typedef int CUresult;
enum : CUresult {
  CUDA_SUCCESS = 0,
  CUDA_ERROR_INVALID_VALUE = 1,
  CUDA_ERROR_NOT_INITIALIZED = 3,
  CUDA_ERROR_NO_DEVICE = 100,
  CUDA_ERROR_INVALID_DEVICE = 101,
  CUDA_ERROR_INVALID_IMAGE = 200,
  CUDA_ERROR_INVALID_CONTEXT = 201,
  CUDA_ERROR_INVALID_HANDLE = 400,
  CUDA_ERROR_NOT_FOUND = 500,
  CUDA_ERROR_NOT_READY = 600,
  CUDA_ERROR_NOT_SUPPORTED = 801,
};
constexpr unsigned CU_STREAM_NON_BLOCKING = 1;

typedef int CUdevice;
struct CUuuid {
  char bytes[16];
};
typedef struct CUctx_st *CUcontext;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
enum CUdevice_attribute : int {
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
};

CUresult cuInit(unsigned flags);
CUresult cuDriverGetVersion(int *version);
CUresult cuDeviceGetCount(int *count);
CUresult cuDeviceGet(CUdevice *device, int ordinal);
CUresult cuDeviceGetName(char *name, int length, CUdevice device);
CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device);
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device);
CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device);
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device);
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device);
CUresult cuCtxSetCurrent(CUcontext context);
CUresult cuCtxGetCurrent(CUcontext *context);
CUresult cuMemGetInfo_v2(size_t *free, size_t *total);
CUresult cuGetErrorName(CUresult error, const char **name);
CUresult cuGetErrorString(CUresult error, const char **text);
CUresult cuStreamCreate(CUstream *stream, unsigned flags);
CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority);
CUresult cuStreamDestroy_v2(CUstream stream);
CUresult cuStreamQuery(CUstream stream);
CUresult cuStreamSynchronize(CUstream stream);
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags);
CUresult cuEventCreate(CUevent *event, unsigned flags);
CUresult cuEventRecord(CUevent event, CUstream stream);
CUresult cuEventQuery(CUevent event);
CUresult cuEventSynchronize(CUevent event);
CUresult cuEventDestroy_v2(CUevent event);
CUresult cuModuleLoadData(CUmodule *module, const void *image);
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name);
CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream, void **parameters,
                        void **extra);

// Functions that only the software driver has, implemented in driver.cpp.

// Must be called before each operation of libtorch in the default stream, which then executes at once on the calling
// thread. Waits until the default stream's queue is completed, and returns the operation's number, counted from 1. `what`
// is the operation's name. Applies to the GPU whose context is current, or to the first GPU.
uint64_t soft_gpu_compute(const char *what);

// Waits until all of libtorch's operations are completed, as a copy of their results to the host does.
void soft_gpu_finish();

// Declares that work on `stream`, named `what`, is going to use the memory at `at`. Aborts the process if the stream is
// not the default one and has not waited for libtorch's earlier operations on this memory.
void soft_gpu_uses(CUstream stream, const void *at, bool writes, const char *what);

// Queues `work(argument)` on a stream. If it does not return CUDA_SUCCESS, the work will not be executed.
CUresult soft_gpu_enqueue(CUstream stream, void (*work)(void *), void *argument);

// The memory of the software GPUs, implemented in memory.cpp.

// Allocates `bytes` at an address that only the software GPU can use. Returns null if no piece is large enough.
void *soft_gpu_allocate(size_t bytes);
void soft_gpu_free(void *at);
// The address at which the software GPU accesses the memory at `at`. An address of the host is returned unchanged.
void *soft_gpu_host(const void *at);
// Declares that operation `number` of libtorch reads or writes the memory at `at`.
void soft_gpu_note(const void *at, bool writes, uint64_t number);
// Number of libtorch's last operation that work must wait for before it reads or writes at `at`; 0 if there is none.
uint64_t soft_gpu_last(const void *at, bool writes);
// The memory's size in bytes; `free` receives the free bytes.
size_t soft_gpu_bytes(size_t *free);

// NVRTC: libnvrtc.so.13, implemented in nvrtc.cpp.

typedef int nvrtcResult;
enum : nvrtcResult {
  NVRTC_SUCCESS = 0,
  NVRTC_ERROR_INVALID_INPUT = 3,
  NVRTC_ERROR_COMPILATION = 6,
};
typedef struct nvrtcProgram_st *nvrtcProgram;

// What the software compiler makes and the software driver loads: this header, then a shared library.
struct SoftCubin {
  char magic[8];
  size_t bytes;
};
constexpr char SOFT_CUBIN_MAGIC[] = "SOFTGPU";
static_assert(sizeof(SOFT_CUBIN_MAGIC) == sizeof(SoftCubin::magic), "a magic number of eight bytes");

nvrtcResult nvrtcVersion(int *major, int *minor);
const char *nvrtcGetErrorString(nvrtcResult result);
nvrtcResult nvrtcCreateProgram(nvrtcProgram *program, const char *source, const char *name, int headers,
                               const char *const *texts, const char *const *names);
nvrtcResult nvrtcDestroyProgram(nvrtcProgram *program);
nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int count, const char *const *options);
nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t *bytes);
nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char *log);
nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, size_t *bytes);
nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char *cubin);

// NCCL: libnccl.so.2, implemented in nccl.cpp.

typedef int ncclResult_t;
enum : ncclResult_t {
  ncclSuccess = 0,
  ncclUnhandledCudaError = 1,
  ncclSystemError = 2,
  ncclInternalError = 3,
  ncclInvalidArgument = 4,
  ncclInvalidUsage = 5,
  ncclRemoteError = 6,
  ncclInProgress = 7,
};
typedef int ncclDataType_t;
constexpr ncclDataType_t ncclFloat32 = 7;
typedef int ncclRedOp_t;
constexpr ncclRedOp_t ncclSum = 0;
constexpr int SOFT_NCCL_VERSION = 22809;
constexpr unsigned NCCL_CONFIG_MAGIC = 0xcafebeef;

typedef struct ncclComm *ncclComm_t;

struct ncclUniqueId {
  char internal[128];
};

// The layout of NCCL 2.28.
struct ncclConfig_t {
  size_t size;
  unsigned magic;
  unsigned version;
  int blocking;
  int cgaClusterSize;
  int minCTAs;
  int maxCTAs;
  const char *netName;
  int splitShare;
  int trafficClass;
  const char *commName;
  int collnetEnable;
  int CTAPolicy;
  int shrinkShare;
  int nvlsCTAs;
  int nChannelsPerNetPeer;
  int nvlinkCentricSched;
};

ncclResult_t ncclGetVersion(int *version);
const char *ncclGetErrorString(ncclResult_t result);
ncclResult_t ncclGetUniqueId(ncclUniqueId *id);
ncclResult_t ncclCommInitRankConfig(ncclComm_t *handle, int ranks, ncclUniqueId id, int rank, ncclConfig_t *config);
ncclResult_t ncclCommAbort(ncclComm_t handle);
ncclResult_t ncclCommGetAsyncError(ncclComm_t handle, ncclResult_t *error);
ncclResult_t ncclGroupStart();
ncclResult_t ncclGroupEnd();
ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t handle,
                      CUstream stream);
ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t handle, CUstream stream);
ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t handle, CUstream stream);
ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root, ncclComm_t handle,
                           CUstream stream);

#pragma GCC visibility pop
}

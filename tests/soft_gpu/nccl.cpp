// A software libnccl.so.2 with the functions of NCCL that the worker calls, for tests on machines without a GPU.
//
// Ranks are processes of one machine, or threads of one process; a socket connects each pair of ranks. A group of calls
// is one piece of work in a stream of the software driver (driver.cpp). It is as strict as NCCL: calls do not block and
// the caller must poll the communicator, all sends and receives of a group make progress together, and a sum is added in
// the order of a ring and not of the ranks. If the calls of two ranks do not match, the process aborts with a message.
//
// Environment variables:
//   NCCL_HOSTID             as with NCCL, replaces the machine's name; two ranks on one GPU of one machine are refused
//   SOFT_NCCL_SEES_DEATH=1  the loss of a peer is an error, as with NCCL over a network; otherwise the ranks wait for a
//                           lost peer until the abort, as over NVLink

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "nccl_ranks.h"
#include "soft_gpu.h"

namespace {

struct Group {
  int depth = 0;
  ncclResult_t error = ncclSuccess;
  std::shared_ptr<Comm> comm;
  CUstream stream = nullptr;
  std::vector<Call> calls;
  uint64_t number = 0;
};

thread_local Group group;

// Open communicators by handle. Handles are never reused, so that an aborted communicator is not mistaken for another.
// Lock and map are never destroyed, because threads use them until the process exits.
std::mutex &handles_lock = *new std::mutex;
auto &handles = *new std::map<ncclComm_t, std::shared_ptr<Comm>>;

std::shared_ptr<Comm> find(ncclComm_t handle) {
  std::lock_guard<std::mutex> held(handles_lock);
  const auto found = handles.find(handle);
  return found == handles.end() ? nullptr : found->second;
}

// Executes a group's calls in a stream: first all sends and receives together, then the other calls one after the other.
// NCCL, too, guarantees no order between these two kinds.
void perform(const Group &queued) {
  Comm &comm = *queued.comm;
  std::unique_lock<std::mutex> held(comm.working);
  comm.changed.wait(held, [&] { return comm.aborted || comm.turn == queued.number; });
  std::vector<Message> messages;
  for (const Call &call : queued.calls) {
    if (call.kind == SEND) {
      void *const data = call.out ? call.from : call.to;
      messages.push_back({call.peer, call.out, {SEND, 0, call.count}, data, call.count * sizeof(float)});
    }
  }
  // After an abort nothing is read or written any more.
  bool going = exchange(comm, messages);
  for (const Call &call : queued.calls) {
    if (going && call.kind != SEND) {
      going = call.kind == BROADCAST ? broadcast(comm, call) : all_reduce(comm, call);
    }
  }
  ++comm.turn;
  comm.changed.notify_all();
}

// Queues a group a moment after the call that ended it, so that a caller that does not poll is noticed.
void launch(Group ended) {
  std::this_thread::sleep_for(std::chrono::microseconds(100));
  Comm &comm = *ended.comm;
  cuCtxSetCurrent(comm.context);
  std::lock_guard<std::mutex> held(comm.queuing);
  if (comm.aborted) {
    return;
  }
  for (const Call &call : ended.calls) {
    for (const auto &[at, writes] : {std::pair(call.from, false), std::pair(call.to, true)}) {
      soft_gpu_uses(ended.stream, at, writes, KINDS[call.kind]);
    }
  }
  ended.number = comm.queued++;
  auto *const queued = new Group(ended);
  const auto work = [](void *queued) { perform(*std::unique_ptr<Group>(static_cast<Group *>(queued))); };
  const CUresult error = soft_gpu_enqueue(ended.stream, work, queued);
  if (error) {
    delete queued;
  }
  comm.settle(error ? ncclUnhandledCudaError : ncclSuccess);
}

// Checks whether a call is allowed.
ncclResult_t check(const std::shared_ptr<Comm> &comm, CUstream stream, ncclDataType_t type, const Call &call) {
  if (!comm || type != ncclFloat32 || call.peer < 0 || call.peer >= comm->ranks) {
    return refuse(ncclInvalidArgument, "no such communicator, another type than ncclFloat32, or no such rank");
  }
  const ncclResult_t state = comm->state;
  if (state == ncclInProgress) {
    return refuse(ncclInvalidUsage, "the communicator is used while its last call is in progress");
  }
  if (call.kind == SEND && call.peer == comm->rank) {
    return refuse(ncclInvalidUsage, "sends of a rank to itself are not supported");
  }
  if (!group.calls.empty() && (group.comm != comm || group.stream != stream)) {
    return refuse(ncclInvalidUsage, "groups with several communicators or streams are not supported");
  }
  return state;
}

// Adds a call to the open group. A call outside a group forms its own group.
ncclResult_t add(ncclComm_t handle, CUstream stream, ncclDataType_t type, Call call) {
  ncclGroupStart();
  const std::shared_ptr<Comm> comm = find(handle);
  const ncclResult_t result = check(comm, stream, type, call);
  if (result == ncclSuccess) {
    group.comm = comm;
    group.stream = stream;
    group.calls.push_back(call);
  } else if (group.error == ncclSuccess) {
    group.error = result;
  }
  const ncclResult_t ended = ncclGroupEnd();
  return result != ncclSuccess ? result : ended;
}

} // namespace

ncclResult_t ncclGetVersion(int *version) {
  *version = SOFT_NCCL_VERSION;
  return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
  const char *const texts[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error",
                               "invalid argument", "invalid usage",
                               "remote process exited or there was a network error", "NCCL operation in progress"};
  return result >= ncclSuccess && result <= ncclInProgress ? texts[result] : "unknown result code";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
  std::random_device random;
  std::memset(id->internal, 0, sizeof id->internal);
  std::snprintf(id->internal, sizeof id->internal, "%s%08x%08x%08x", ID, random(), random(), random());
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *handle, int ranks, ncclUniqueId id, int rank, ncclConfig_t *config) {
  if (!config || config->size != sizeof *config || config->magic != NCCL_CONFIG_MAGIC ||
      config->version != SOFT_NCCL_VERSION) {
    return refuse(ncclInvalidArgument, "the configuration does not have the layout of this version");
  }
  if (config->blocking != 0) {
    return refuse(ncclInvalidUsage, "a communicator with blocking calls is not supported");
  }
  if (rank < 0 || rank >= ranks || std::strncmp(id.internal, ID, sizeof ID - 1) != 0) {
    return refuse(ncclInvalidArgument, "no such rank, or not an id of this library");
  }
  const char *const sees = std::getenv("SOFT_NCCL_SEES_DEATH"), *const name = std::getenv("NCCL_HOSTID");
  const auto comm = std::make_shared<Comm>(rank, ranks, std::string(id.internal, strnlen(id.internal, 64)));
  comm->sees_death = sees && std::strcmp(sees, "1") == 0;
  gethostname(comm->hello.host, sizeof comm->hello.host - 1);
  if (name) {
    std::snprintf(comm->hello.host, sizeof comm->hello.host, "%s", name);
  }
  // The current GPU, or the first if none is current.
  CUcontext current = nullptr;
  cuInit(0);
  cuCtxGetCurrent(&current);
  while (cuDevicePrimaryCtxRetain(&comm->context, comm->hello.gpu) == CUDA_SUCCESS && current &&
         comm->context != current) {
    ++comm->hello.gpu;
  }
  std::thread([comm] { comm->settle(meet(*comm)); }).detach();
  std::lock_guard<std::mutex> held(handles_lock);
  static uintptr_t last = 0;
  *handle = reinterpret_cast<ncclComm_t>(++last);
  handles[*handle] = comm;
  return ncclInProgress;
}

ncclResult_t ncclCommAbort(ncclComm_t handle) {
  const std::shared_ptr<Comm> comm = find(handle);
  if (!comm) {
    return ncclInvalidArgument;
  }
  {
    std::scoped_lock held(handles_lock, comm->queuing);
    handles.erase(handle);
    comm->aborted = true;
  }
  eventfd_write(comm->abort.number, 1);
  // Work in progress must end before this returns, because the caller may then free its memory.
  std::lock_guard<std::mutex> held(comm->working);
  comm->changed.notify_all();
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t handle, ncclResult_t *error) {
  const std::shared_ptr<Comm> comm = find(handle);
  if (!comm) {
    return ncclInvalidArgument;
  }
  *error = comm->state;
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++group.depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (group.depth == 0) {
    return refuse(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
  }
  if (--group.depth > 0) {
    return ncclSuccess;
  }
  const Group ended = std::exchange(group, Group());
  if (ended.error != ncclSuccess || ended.calls.empty()) {
    return ended.error;
  }
  ncclResult_t state = ncclSuccess;
  if (!ended.comm->state.compare_exchange_strong(state, ncclInProgress)) {
    return state == ncclInProgress ? ncclInvalidUsage : state;
  }
  std::thread(launch, ended).detach();
  return ncclInProgress;
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, CUstream stream) {
  return add(comm, stream, type, {SEND, true, peer, soft_gpu_host(from), nullptr, count});
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, CUstream stream) {
  return add(comm, stream, type, {SEND, false, peer, nullptr, soft_gpu_host(to), count});
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, CUstream stream) {
  if (op != ncclSum) {
    return refuse(ncclInvalidArgument, "only ncclSum is supported");
  }
  return add(comm, stream, type, {ALL_REDUCE, false, 0, soft_gpu_host(from), soft_gpu_host(to), count});
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           CUstream stream) {
  return add(comm, stream, type, {BROADCAST, false, root, soft_gpu_host(from), soft_gpu_host(to), count});
}

// A libnccl.so.2 of software: the functions of NCCL that are used, for tests on machines without a GPU.
//
// Ranks are processes of one machine, or threads of one process, each connected to each by a socket. A group of calls
// is one piece of work in a stream of the software driver (driver.cpp). It is as strict as NCCL: a communicator does
// not block and is to be polled, sends and receives of a group make progress together, a sum has NCCL's order and not
// that of the ranks. Calls of two ranks that do not fit together end the process, with a message.
//
// Settings, from the environment: NCCL_HOSTID, as with NCCL, what to take for the machine's name; two ranks on one GPU
// of one machine are refused. With SOFT_NCCL_SEES_DEATH=1 a peer that is gone is an error, as it is with NCCL over a
// network; otherwise it is waited for until the abort, as it is over NVLink.

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
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

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "soft_gpu.h"

namespace {

static_assert(sizeof(ncclConfig_t) == 80, "as NCCL 2.28 has it");

const char ID[] = "soft-nccl-";
// Looks for an abort lie between pieces of so many bytes.
constexpr size_t PIECE = 1 << 20;

ncclResult_t refuse(ncclResult_t result, const std::string &why) {
  std::fprintf(stderr, "software NCCL: %s\n", why.c_str());
  return result;
}

// An open file, or none.
struct File {
  explicit File(int number = -1) : number(number) {}
  File(File &&other) noexcept : number(std::exchange(other.number, -1)) {}
  ~File() {
    if (number >= 0) {
      close(number);
    }
  }
  int number;
};

enum Kind : uint32_t { HELLO, SEND, BROADCAST, ALL_REDUCE };
const char *const KINDS[] = {"a hello", "a send", "a broadcast", "an all-reduce"};

// What goes before each message: the kind of call, a broadcast's root or an all-reduce's step, and how many numbers
// the call has, of which an all-reduce's message has some. All are of the type ncclFloat32.
struct Header {
  Kind kind;
  int32_t detail;
  uint64_t count;
};

// A message to a peer, or from it.
struct Message {
  int peer;
  bool out;
  // What is sent or expected.
  Header header;
  void *data;
  size_t bytes;
  Header came = {};
  // Bytes of header and data that are through.
  size_t done = 0;
};

// What ranks tell each other first.
struct Hello {
  int ranks;
  int gpu;
  char host[128];
};

// A call in a group, with the addresses as the software GPU has them. The peer is a broadcast's root, too.
struct Call {
  Kind kind;
  bool out;
  int peer;
  void *from;
  void *to;
  size_t count;
};

struct Comm {
  Comm(int rank, int ranks, std::string id) : rank(rank), ranks(ranks), id(id), hello{ranks, 0, {}}, dead(ranks) {}

  const int rank;
  const int ranks;
  const std::string id;
  Hello hello;
  bool sees_death = false;
  CUcontext context = nullptr;
  std::atomic<ncclResult_t> state{ncclInProgress};
  std::atomic<bool> aborted{false};
  // Readable from the abort on.
  File abort{eventfd(0, EFD_CLOEXEC)};
  // Are held while a group is queued and while one is worked on, so that an abort gets in between only.
  std::mutex queuing, working;
  // Groups run in the order in which they were queued, whatever their streams.
  std::condition_variable changed;
  uint64_t queued = 0, turn = 0;
  // By rank.
  std::vector<File> peers;
  std::vector<bool> dead;

  // Ends what is in progress.
  void settle(ncclResult_t result) {
    ncclResult_t expected = ncclInProgress;
    state.compare_exchange_strong(expected, result);
  }
};

struct Group {
  int depth = 0;
  ncclResult_t error = ncclSuccess;
  std::shared_ptr<Comm> comm;
  CUstream stream = nullptr;
  std::vector<Call> calls;
  uint64_t number = 0;
};

thread_local Group group;

// Open communicators, by handles that never come again, so that an aborted one is not taken for another. They are never
// ended, as there are threads until the process is gone.
std::mutex &handles_lock = *new std::mutex;
auto &handles = *new std::map<ncclComm_t, std::shared_ptr<Comm>>;

std::shared_ptr<Comm> find(ncclComm_t handle) {
  std::lock_guard<std::mutex> held(handles_lock);
  const auto found = handles.find(handle);
  return found == handles.end() ? nullptr : found->second;
}

// Moves a piece of a message, if the socket is ready. False says that the peer is gone.
bool move(Comm &comm, Message &m) {
  const int socket = comm.peers[m.peer].number, flags = MSG_DONTWAIT | MSG_NOSIGNAL;
  const bool body = m.done >= sizeof m.header;
  const size_t at = body ? m.done - sizeof m.header : m.done;
  const size_t bytes = body ? std::min(m.bytes - at, PIECE) : sizeof m.header - at;
  char *const place = (body ? static_cast<char *>(m.data) : reinterpret_cast<char *>(m.out ? &m.header : &m.came)) + at;
  const ssize_t moved = m.out ? send(socket, place, bytes, flags) : recv(socket, place, bytes, flags);
  if (moved <= 0) {
    return moved < 0 && (errno == EAGAIN || errno == EINTR);
  }
  m.done += static_cast<size_t>(moved);
  const Header &is = m.came, &wanted = m.header;
  if (!m.out && m.done == sizeof is && std::memcmp(&is, &wanted, sizeof is) != 0) {
    for (const auto &[rank, header] : {std::pair(comm.rank, wanted), std::pair(m.peer, is)}) {
      std::fprintf(stderr, "software NCCL: rank %d is at %s of %zu numbers (root or step %d)\n", rank,
                   KINDS[header.kind], static_cast<size_t>(header.count), header.detail);
    }
    std::abort();
  }
  return true;
}

// Moves messages, all at once, but in order between two ranks. False says that it was aborted; a peer's death alone
// does not end it.
bool exchange(Comm &comm, std::vector<Message> messages) {
  while (!comm.aborted) {
    // What is next from each peer and to it.
    std::vector<Message *> next(2 * comm.ranks);
    bool finished = true;
    for (Message &m : messages) {
      Message *&place = next[2 * m.peer + m.out];
      if (!place && m.done < sizeof m.header + m.bytes) {
        place = &m;
        finished = false;
      }
    }
    if (finished) {
      return true;
    }
    std::vector<pollfd> files;
    for (int peer = 0; peer < comm.ranks; ++peer) {
      const int events = (next[2 * peer] ? POLLIN : 0) | (next[2 * peer + 1] ? POLLOUT : 0);
      files.push_back({events && !comm.dead[peer] ? comm.peers[peer].number : -1, static_cast<short>(events), 0});
    }
    files.push_back({comm.abort.number, POLLIN, 0});
    poll(files.data(), files.size(), -1);
    for (size_t i = 0; i < next.size(); ++i) {
      if (next[i] && files[i / 2].revents && !move(comm, *next[i])) {
        comm.dead[i / 2] = true;
        if (comm.sees_death) {
          comm.state = ncclRemoteError;
        }
      }
    }
  }
  return false;
}

bool broadcast(Comm &comm, const Call &call) {
  const bool out = comm.rank == call.peer;
  const size_t bytes = call.count * sizeof(float);
  std::vector<Message> messages;
  for (int peer = 0; peer < comm.ranks; ++peer) {
    if (peer != comm.rank && (out || peer == call.peer)) {
      messages.push_back({peer, out, {BROADCAST, call.peer, call.count}, out ? call.from : call.to, bytes});
    }
  }
  if (out) {
    std::memmove(call.to, call.from, bytes);
  }
  return exchange(comm, messages);
}

// A ring: part `i` of the numbers starts at rank i + 1 and comes to rank i as a sum, which goes round once more.
bool all_reduce(Comm &comm, const Call &call) {
  const int n = comm.ranks, next = (comm.rank + 1) % n, previous = (comm.rank + n - 1) % n;
  const auto start = [&](int part) { return call.count * part / n; };
  const auto bytes = [&](int part) { return (start(part + 1) - start(part)) * sizeof(float); };
  std::memmove(call.to, call.from, call.count * sizeof(float));
  auto *const sums = static_cast<float *>(call.to);
  std::vector<float> came(call.count / n + 1);
  for (int step = 0; step < 2 * (n - 1); ++step) {
    const int out = (comm.rank + 2 * n - 1 - step) % n, in = (comm.rank + 2 * n - 2 - step) % n;
    const bool adds = step < n - 1;
    const Header header = {ALL_REDUCE, step, call.count};
    float *const into = adds ? came.data() : sums + start(in);
    if (!exchange(comm, {{next, true, header, sums + start(out), bytes(out)},
                         {previous, false, header, into, bytes(in)}})) {
      return false;
    }
    for (size_t i = start(in); adds && i < start(in + 1); ++i) {
      sums[i] = came[i - start(in)] + sums[i];
    }
  }
  return true;
}

// Does a group's calls in a stream: sends and receives together, then the others one after the other, as NCCL keeps no
// order between the two sorts either.
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
  // Nothing is read or written once it is aborted.
  bool going = exchange(comm, messages);
  for (const Call &call : queued.calls) {
    if (going && call.kind != SEND) {
      going = call.kind == BROADCAST ? broadcast(comm, call) : all_reduce(comm, call);
    }
  }
  ++comm.turn;
  comm.changed.notify_all();
}

// Queues a group a moment after the call that ended it, so that a caller who does not poll is found out.
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

// A socket's address: where `rank` listens for `peer`.
sockaddr_un address(const Comm &comm, int rank, int peer) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  // The first byte stays 0: it is a name without a file.
  std::snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "%s-%d-%d", comm.id.c_str(), rank, peer);
  return address;
}

// Connects each rank to each, in a thread of its own. An abort ends it, with whatever result.
ncclResult_t meet(Comm &comm) {
  const auto new_socket = [] { return socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); };
  // One for itself is there, too, so that a second rank of the same number is noticed.
  std::vector<File> listeners;
  for (int peer = comm.rank; peer < comm.ranks; ++peer) {
    listeners.emplace_back(new_socket());
    const sockaddr_un at = address(comm, comm.rank, peer);
    const int bound = bind(listeners.back().number, reinterpret_cast<const sockaddr *>(&at), sizeof at);
    if (bound != 0 || listen(listeners.back().number, 1) != 0) {
      return refuse(ncclInvalidUsage, "rank " + std::to_string(comm.rank) + " cannot listen; is it there twice?");
    }
  }
  for (int peer = 0; peer < comm.ranks; ++peer) {
    pollfd files[] = {{comm.abort.number, POLLIN, 0}, {-1, POLLIN, 0}};
    if (peer < comm.rank) {
      comm.peers.emplace_back(new_socket());
      const sockaddr_un at = address(comm, peer, comm.rank);
      while (connect(comm.peers.back().number, reinterpret_cast<const sockaddr *>(&at), sizeof at) != 0) {
        // It is not there yet.
        if (poll(files, 1, 1) > 0) {
          return ncclSystemError;
        }
      }
    } else if (peer == comm.rank) {
      comm.peers.emplace_back();
    } else {
      files[1].fd = listeners[peer - comm.rank].number;
      poll(files, 2, -1);
      comm.peers.emplace_back(accept4(files[1].fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    }
  }
  std::vector<Hello> hellos(comm.ranks, comm.hello);
  std::vector<Message> greetings;
  for (int peer = 0; peer < comm.ranks; ++peer) {
    if (peer != comm.rank) {
      greetings.push_back({peer, true, {HELLO, 0, 0}, &comm.hello, sizeof(Hello)});
      greetings.push_back({peer, false, {HELLO, 0, 0}, &hellos[peer], sizeof(Hello)});
    }
  }
  if (!exchange(comm, greetings)) {
    return ncclSystemError;
  }
  for (const Hello &a : hellos) {
    if (a.ranks != comm.ranks) {
      return refuse(ncclInvalidUsage, "ranks do not agree on how many they are");
    }
    for (const Hello *b = &a + 1; b < hellos.data() + comm.ranks; ++b) {
      if (a.gpu == b->gpu && std::strcmp(a.host, b->host) == 0) {
        return refuse(ncclInvalidUsage, "two ranks on GPU " + std::to_string(a.gpu) + " of " + a.host);
      }
    }
  }
  // Nobody is done before all are connected, which a second greeting says.
  return exchange(comm, greetings) ? ncclSuccess : ncclSystemError;
}

// Whether a call may be made.
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

// Adds a call to the group; one outside a group is a group of its own.
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
    return refuse(ncclInvalidArgument, "the configuration is not that of this version");
  }
  if (config->blocking != 0) {
    return refuse(ncclInvalidUsage, "a communicator that blocks is not supported");
  }
  if (rank < 0 || rank >= ranks || std::strncmp(id.internal, ID, sizeof ID - 1) != 0) {
    return refuse(ncclInvalidArgument, "no such rank, or an id that is none");
  }
  const char *const sees = std::getenv("SOFT_NCCL_SEES_DEATH"), *const name = std::getenv("NCCL_HOSTID");
  const auto comm = std::make_shared<Comm>(rank, ranks, std::string(id.internal, strnlen(id.internal, 64)));
  comm->sees_death = sees && std::strcmp(sees, "1") == 0;
  gethostname(comm->hello.host, sizeof comm->hello.host - 1);
  if (name) {
    std::snprintf(comm->hello.host, sizeof comm->hello.host, "%s", name);
  }
  // The GPU that is current, or else the first.
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
  // Work under way has ended before the caller may free its memory.
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
    return refuse(ncclInvalidUsage, "a group ends that did not start");
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
    return refuse(ncclInvalidArgument, "another operation than ncclSum");
  }
  return add(comm, stream, type, {ALL_REDUCE, false, 0, soft_gpu_host(from), soft_gpu_host(to), count});
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           CUstream stream) {
  return add(comm, stream, type, {BROADCAST, false, root, soft_gpu_host(from), soft_gpu_host(to), count});
}

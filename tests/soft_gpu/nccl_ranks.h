// The sockets between the ranks of the software NCCL, and the messages that its calls send. Included by nccl.cpp only.

#pragma once

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
// Largest number of bytes moved between two checks for an abort.
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

// Precedes each message. `detail` is the root of a broadcast or the step of an all-reduce. `count` is the number of floats
// (ncclFloat32) of the whole call; a message of an all-reduce holds a part of them.
struct Header {
  Kind kind;
  int32_t detail;
  uint64_t count;
};

// A message to a peer (`out`) or from it.
struct Message {
  int peer;
  bool out;
  // The header that is sent or expected.
  Header header;
  void *data;
  size_t bytes;
  // The header that arrived.
  Header came = {};
  // Bytes of header and data sent or received so far.
  size_t done = 0;
};

// The first message between two ranks.
struct Hello {
  int ranks;
  int gpu;
  char host[128];
};

// A call in a group, with addresses that the software GPU can access. For a broadcast `peer` is the root.
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
  // An eventfd that is readable after the abort.
  File abort{eventfd(0, EFD_CLOEXEC)};
  // Held while a group is queued, and while a group is executed, so that an abort never happens during either.
  std::mutex queuing, working;
  // Groups are executed in the order in which they were queued, also on different streams.
  std::condition_variable changed;
  uint64_t queued = 0, turn = 0;
  // Socket to each rank, and whether that rank is lost.
  std::vector<File> peers;
  std::vector<bool> dead;

  // Ends the call in progress with a result.
  void settle(ncclResult_t result) {
    ncclResult_t expected = ncclInProgress;
    state.compare_exchange_strong(expected, result);
  }
};

// Sends or receives a piece of a message, if the socket is ready. Returns false if the peer is lost.
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

// Sends and receives messages, all at the same time, but in order between two ranks. Returns false after an abort; the loss
// of a peer alone does not end it.
bool exchange(Comm &comm, std::vector<Message> messages) {
  while (!comm.aborted) {
    // The next message from each peer and to each peer.
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

// A ring. Part `i` of the floats starts at rank i + 1; each rank adds its own part and sends the sum on. Rank i has the
// total, which goes round the ring once more.
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

// The address of the socket on which `rank` listens for `peer`.
sockaddr_un address(const Comm &comm, int rank, int peer) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  // The first byte stays 0: an abstract name, without a file.
  std::snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "%s-%d-%d", comm.id.c_str(), rank, peer);
  return address;
}

// Connects this rank to all others; runs in a thread of its own. An abort ends it, with any result.
ncclResult_t meet(Comm &comm) {
  const auto new_socket = [] { return socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); };
  // The rank listens for itself, too: a second process with the same rank then fails to bind.
  std::vector<File> listeners;
  for (int peer = comm.rank; peer < comm.ranks; ++peer) {
    listeners.emplace_back(new_socket());
    const sockaddr_un at = address(comm, comm.rank, peer);
    const int bound = bind(listeners.back().number, reinterpret_cast<const sockaddr *>(&at), sizeof at);
    if (bound != 0 || listen(listeners.back().number, 1) != 0) {
      const std::string name = "rank " + std::to_string(comm.rank);
      return refuse(ncclInvalidUsage, name + " cannot listen; do two processes have this rank?");
    }
  }
  for (int peer = 0; peer < comm.ranks; ++peer) {
    pollfd files[] = {{comm.abort.number, POLLIN, 0}, {-1, POLLIN, 0}};
    if (peer < comm.rank) {
      comm.peers.emplace_back(new_socket());
      const sockaddr_un at = address(comm, peer, comm.rank);
      while (connect(comm.peers.back().number, reinterpret_cast<const sockaddr *>(&at), sizeof at) != 0) {
        // The peer does not listen yet.
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
      return refuse(ncclInvalidUsage, "the ranks disagree on the number of ranks");
    }
    for (const Hello *b = &a + 1; b < hellos.data() + comm.ranks; ++b) {
      if (a.gpu == b->gpu && std::strcmp(a.host, b->host) == 0) {
        return refuse(ncclInvalidUsage, "two ranks on GPU " + std::to_string(a.gpu) + " of " + a.host);
      }
    }
  }
  // A second greeting: when it has arrived from all ranks, every rank is connected to every other one.
  return exchange(comm, greetings) ? ncclSuccess : ncclSystemError;
}

} // namespace

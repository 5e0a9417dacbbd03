// See shim.h.

#include "shim.h"

#include <cstring>
#include <stdexcept>
#include <string>

namespace {

// Fixed memory, so that a failed allocation can be reported, too. The first line of an error of libtorch says what is
// wrong; behind it comes a backtrace, which may be cut.
thread_local char text[2048] = "";

} // namespace

namespace fovea {

int failed(const char *what) noexcept {
  std::strncpy(text, what != nullptr ? what : "", sizeof(text) - 1);
  text[sizeof(text) - 1] = '\0';
  return -1;
}

} // namespace fovea

extern "C" {

// The text of this thread's last error. It belongs to the thread, and its next error overwrites it.
const char *fovea_shim_error() { return text; }

// Throws, for the tests: 1 a std::exception, 2 something else, 3 an error longer than the text's memory.
int fovea_shim_throw(int kind) {
  return fovea::guarded([&] {
    switch (kind) {
    case 1:
      throw std::runtime_error("the first line\nthe second line");
    case 2:
      throw kind;
    case 3:
      throw std::runtime_error(std::string(100000, 'x'));
    default:
      return;
    }
  });
}
}

// Functions of Rust's in libtorch's autograd, and backward passes that are taken in parts: tch has no call for either.
//
// Errors follow shim.h. Tensors cross as pointers to heap-allocated at::Tensor, as everywhere in tch's own interface; whoever
// is given a fresh one deletes it.

#include "../shim.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

using torch::autograd::edge_list;
using torch::autograd::Node;
using torch::autograd::variable_list;

extern "C" {
// Fills `results` with fresh tensors, or null, for the inputs that are `needed`. Takes ownership of `gradient`. Returns 0,
// or -1 with a text in `text`, which has `room` bytes. It must not unwind.
typedef int (*fovea_backward)(void *op, at::Tensor *gradient, const bool *needed, at::Tensor **results,
                              size_t inputs, char *text, size_t room);
// Deletes `op`. It must not unwind.
typedef void (*fovea_drop)(void *op);
}

namespace {

using Operation = std::unique_ptr<void, fovea_drop>;

struct RustNode final : Node {
  RustNode(edge_list edges, Operation op, fovea_backward backward)
      : Node(std::move(edges)), op_(std::move(op)), backward_(backward) {}

  std::string name() const override { return "FoveaBackward"; }

  // libtorch calls this once the backward pass is done here: what was kept for it is deleted.
  void release_variables() override { op_.reset(); }

  variable_list apply(variable_list &&gradients) override {
    const size_t inputs = num_outputs();
    variable_list list(inputs);
    if (!gradients.at(0).defined()) {
      return list;
    }
    if (op_ == nullptr) {
      throw std::runtime_error("the backward pass has been taken before, and what it needs is deleted");
    }
    auto needed = std::make_unique<bool[]>(inputs);
    auto results = std::make_unique<at::Tensor *[]>(inputs);
    for (size_t i = 0; i < inputs; i++) {
      needed[i] = task_should_compute_output(i);
      results[i] = nullptr;
    }
    char text[512] = "";
    const int code = backward_(op_.get(), new at::Tensor(std::move(gradients[0])), needed.get(),
                               results.get(), inputs, text, sizeof(text));
    for (size_t i = 0; i < inputs; i++) {
      if (results[i] != nullptr) {
        list[i] = std::move(*results[i]);
        delete results[i];
      }
    }
    if (code != 0) {
      throw std::runtime_error(text);
    }
    return list;
  }

private:
  Operation op_;
  fovea_backward backward_;
};

} // namespace

extern "C" {

// Whether autograd would record a function of these tensors.
int fovea_records(const at::Tensor *const *inputs, size_t count, bool *records) {
  return fovea::guarded([&] {
    bool any = false;
    for (size_t i = 0; i < count && at::GradMode::is_enabled(); i++) {
      any = any || inputs[i]->requires_grad();
    }
    *records = any;
  });
}

// The values of `output`, in the same memory, as a function of `inputs` whose gradients `backward` computes. Takes ownership
// of `op`, also when it fails.
int fovea_attach(const at::Tensor *output, const at::Tensor *const *inputs, size_t count, void *op,
                 fovea_backward backward, fovea_drop drop, at::Tensor **attached) {
  Operation owned(op, drop);
  return fovea::guarded([&] {
    edge_list edges;
    edges.reserve(count);
    for (size_t i = 0; i < count; i++) {
      edges.push_back(inputs[i]->requires_grad() ? torch::autograd::impl::gradient_edge(*inputs[i])
                                                 : torch::autograd::Edge());
    }
    std::shared_ptr<RustNode> node(new RustNode(std::move(edges), std::move(owned), backward),
                                   torch::autograd::deleteNode);
    // Without a history of its own, even if it is a view.
    auto tensor = std::make_unique<at::Tensor>(output->variable_data());
    torch::autograd::set_history(*tensor, node);
    *attached = tensor.release();
  });
}

// Gradients of the sum of the outputs by the inputs, as fresh tensors, given those by the outputs: null for a scalar.
int fovea_gradients(const at::Tensor *const *outputs, const at::Tensor *const *by_outputs, size_t output_count,
                    const at::Tensor *const *inputs, size_t count, at::Tensor **results) {
  return fovea::guarded([&] {
    variable_list wanted;
    wanted.reserve(count);
    for (size_t i = 0; i < count; i++) {
      wanted.push_back(*inputs[i]);
    }
    variable_list from;
    variable_list given;
    for (size_t i = 0; i < output_count; i++) {
      from.push_back(*outputs[i]);
      given.push_back(by_outputs[i] == nullptr ? at::Tensor() : *by_outputs[i]);
    }
    const variable_list found = torch::autograd::grad(from, wanted, given);
    std::vector<std::unique_ptr<at::Tensor>> fresh;
    for (size_t i = 0; i < count; i++) {
      fresh.push_back(std::make_unique<at::Tensor>(found.at(i)));
    }
    for (size_t i = 0; i < count; i++) {
      results[i] = fresh[i].release();
    }
  });
}
}

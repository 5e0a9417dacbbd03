// Hangs functions of Rust's into libtorch's autograd, and takes a backward pass in parts: tch has no call for either.
//
// Ownership: `op` belongs to the node from `fovea_attach` on. Tensors cross as pointers to heap-allocated
// at::Tensor, as everywhere in tch's own interface; whoever is given a fresh one deletes it.

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

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
// Fills `results` with fresh tensors, or null, for the inputs that are `needed`. Takes `gradient` over.
// False means that it panicked.
typedef bool (*fovea_backward)(void *op, at::Tensor *gradient, const bool *needed,
                               at::Tensor **results, size_t inputs);
typedef void (*fovea_drop)(void *op);
}

namespace {

struct RustNode final : Node {
  RustNode(edge_list edges, void *op, fovea_backward backward, fovea_drop drop)
      : Node(std::move(edges)), op_(op), backward_(backward), drop_(drop) {}
  ~RustNode() override { forget(); }

  std::string name() const override { return "FoveaBackward"; }

  // Called once the backward pass is through here: what was kept for it goes.
  void release_variables() override { forget(); }

  variable_list apply(variable_list &&gradients) override {
    const size_t inputs = num_outputs();
    variable_list list(inputs);
    if (!gradients.at(0).defined()) {
      return list;
    }
    if (op_ == nullptr) {
      throw std::runtime_error("the backward pass came through here before");
    }
    auto needed = std::make_unique<bool[]>(inputs);
    auto results = std::make_unique<at::Tensor *[]>(inputs);
    for (size_t i = 0; i < inputs; i++) {
      needed[i] = task_should_compute_output(i);
      results[i] = nullptr;
    }
    const bool done = backward_(op_, new at::Tensor(std::move(gradients[0])), needed.get(),
                                results.get(), inputs);
    for (size_t i = 0; i < inputs; i++) {
      if (results[i] != nullptr) {
        list[i] = std::move(*results[i]);
        delete results[i];
      }
    }
    if (!done) {
      throw std::runtime_error("a function of the backward pass panicked");
    }
    return list;
  }

private:
  void forget() {
    if (op_ != nullptr) {
      drop_(std::exchange(op_, nullptr));
    }
  }

  void *op_;
  fovea_backward backward_;
  fovea_drop drop_;
};

} // namespace

extern "C" {

// Whether autograd would record a function of these tensors.
bool fovea_records(const at::Tensor *const *inputs, size_t count) {
  if (!at::GradMode::is_enabled()) {
    return false;
  }
  for (size_t i = 0; i < count; i++) {
    if (inputs[i]->requires_grad()) {
      return true;
    }
  }
  return false;
}

// The values of `output`, in the same memory, as a function of `inputs` whose gradients `backward` computes.
at::Tensor *fovea_attach(const at::Tensor *output, const at::Tensor *const *inputs, size_t count, void *op,
                  fovea_backward backward, fovea_drop drop) {
  edge_list edges;
  edges.reserve(count);
  for (size_t i = 0; i < count; i++) {
    edges.push_back(inputs[i]->requires_grad() ? torch::autograd::impl::gradient_edge(*inputs[i])
                                               : torch::autograd::Edge());
  }
  std::shared_ptr<RustNode> node(new RustNode(std::move(edges), op, backward, drop),
                                 torch::autograd::deleteNode);
  // Without a history of its own, even as a view.
  auto attached = std::make_unique<at::Tensor>(output->variable_data());
  torch::autograd::set_history(*attached, node);
  return attached.release();
}

// Gradients of `output` by the inputs, as fresh tensors, given that by `output`, which is null for a scalar. Returns
// null, or what went wrong as a text to be freed; then there are no results.
char *fovea_gradients(const at::Tensor *output, const at::Tensor *by_output, const at::Tensor *const *inputs,
                      size_t count, at::Tensor **results) {
  try {
    variable_list wanted;
    wanted.reserve(count);
    for (size_t i = 0; i < count; i++) {
      wanted.push_back(*inputs[i]);
    }
    variable_list given;
    if (by_output != nullptr) {
      given.push_back(*by_output);
    }
    const variable_list found = torch::autograd::grad({*output}, wanted, given);
    for (size_t i = 0; i < count; i++) {
      results[i] = new at::Tensor(found.at(i));
    }
    return nullptr;
  } catch (const std::exception &problem) {
    return strdup(problem.what());
  }
}
}

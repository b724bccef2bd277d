// The fast kernels of one plan and dtype: compile with -DDNASM_LENGTH=<plan length> -DDNASM_DTYPE=<Dtype>.
#include "schedule.cuh"

namespace dnasm {
namespace {

using Chosen = Plan<DNASM_LENGTH>;
constexpr int kChosenDtype = DNASM_DTYPE;

const char* run_forward(const Params& p) {
  const bool gated = p.in_gate.data || p.out_gate.data;
  if (full_rows(p, DNASM_LENGTH))
    return gated ? launch_forward<Chosen, kChosenDtype, true, true>(p) : launch_forward<Chosen, kChosenDtype, true, false>(p);
  return gated ? launch_forward<Chosen, kChosenDtype, false, true>(p) : launch_forward<Chosen, kChosenDtype, false, false>(p);
}

const char* run_backward(const Params& p) {
  const bool gated = p.in_gate.data || p.out_gate.data;
  if (full_rows(p, DNASM_LENGTH))
    return gated ? launch_backward<Chosen, kChosenDtype, true, true>(p) : launch_backward<Chosen, kChosenDtype, true, false>(p);
  return gated ? launch_backward<Chosen, kChosenDtype, false, true>(p) : launch_backward<Chosen, kChosenDtype, false, false>(p);
}

[[maybe_unused]] const bool announced = (register_kernels(DNASM_LENGTH, kChosenDtype, {run_forward, run_backward}), true);

}  // namespace
}  // namespace dnasm

// The kernels of one plan and dtype: compile with -DDNASM_LENGTH=<plan length> -DDNASM_DTYPE=<Dtype>.
#include "schedule.cuh"

namespace dnasm {
namespace {

using Chosen = Plan<DNASM_LENGTH>;
using ChosenBack = Plan<DNASM_LENGTH, DNASM_LENGTH == 8192 ? 16 : Chosen::kWarps>;  // its sums leave room for one block an SM
constexpr int kChosen = DNASM_DTYPE;

const char* run_forward(const Params& p) {
  if (!full_rows<Chosen>(p)) return launch_forward<Chosen, kChosen, false, true>(p);
  if (p.in_gate.data || p.out_gate.data) return launch_forward<Chosen, kChosen, true, true>(p);
  return launch_forward<Chosen, kChosen, true, false>(p);
}

const char* run_backward(const Params& p) {
  if (!full_rows<ChosenBack>(p)) return launch_backward<ChosenBack, kChosen, false, true>(p);
  if (p.in_gate.data || p.out_gate.data) return launch_backward<ChosenBack, kChosen, true, true>(p);
  return launch_backward<ChosenBack, kChosen, true, false>(p);
}

size_t backward_bytes(const Params& p) { return BackwardScratch<ChosenBack>(p).bytes; }

[[maybe_unused]] const bool announced = [] {
  register_kernels(DNASM_LENGTH, kChosen,
                   {plan_spectrum_bytes<Chosen>, backward_bytes, launch_spectrum<Chosen>, run_forward, run_backward});
  return true;
}();

}  // namespace
}  // namespace dnasm

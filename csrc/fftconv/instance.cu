// The kernels of one plan and dtype: compile with -DDNASM_LENGTH=<plan length> -DDNASM_DTYPE=<Dtype>, and for the float32
// route with -DDNASM_PRECISION=1. 65536 serves all longer plans too, on either route.
// -DDNASM_SHARED_KB=99 for devices with less shared memory than sm_90: 32768 is past one block there.
#if !defined(DNASM_SHARED_KB)
#define DNASM_SHARED_KB 227
#endif
#if !defined(DNASM_PRECISION)
#define DNASM_PRECISION 0
#endif
#define DNASM_LONG (DNASM_LENGTH > (DNASM_SHARED_KB < 227 || DNASM_PRECISION ? 16384 : 32768))
#if DNASM_LONG && DNASM_PRECISION
#include "precise_long.cuh"
#elif DNASM_LONG
#include "long.cuh"
#else
#include "schedule.cuh"
#endif

#include <type_traits>

namespace dnasm {
namespace {

constexpr int kChosen = DNASM_DTYPE;

#if DNASM_PRECISION
#if DNASM_LONG
using Chosen = PreciseLong<DNASM_LENGTH == 32768 ? 2048 : 4096>;
#else
using Chosen = Precise<DNASM_LENGTH>;
#endif
constexpr Kernels kernels = {Chosen::spectrum_bytes, Chosen::forward_bytes,          Chosen::backward_bytes,
                             Chosen::spectrum,       Chosen::forward<kChosen>, Chosen::backward<kChosen>};
#elif DNASM_LONG
using Chosen = Long<Plan<4096>>;

const char* run_forward(const Params& p) {
  if (!Chosen::full_rows(p)) return Chosen::forward<kChosen, false, true>(p);
  if (p.in_gate.data || p.out_gate.data) return Chosen::forward<kChosen, true, true>(p);
  return Chosen::forward<kChosen, true, false>(p);
}
const char* run_backward(const Params& p) {
  if (!Chosen::full_rows(p)) return Chosen::backward<kChosen, false, true>(p);
  if (p.in_gate.data || p.out_gate.data) return Chosen::backward<kChosen, true, true>(p);
  return Chosen::backward<kChosen, true, false>(p);
}
constexpr Kernels kernels = {Chosen::spectrum_bytes, Chosen::forward_bytes, Chosen::backward_bytes,
                             Chosen::spectrum,       run_forward,           run_backward};
#else
using Chosen = Plan<DNASM_LENGTH>;
using Smaller = Plan<DNASM_LENGTH, Chosen::kWarps / 2>;  // four blocks an SM where two of twice the warps fit, measured faster
using ChosenPlain = std::conditional_t<DNASM_LENGTH == 4096 || DNASM_LENGTH == 8192, Smaller, Chosen>;
using ChosenGated = std::conditional_t<DNASM_LENGTH == 8192, Smaller, Chosen>;
using ChosenOne = Plan<DNASM_LENGTH, DNASM_LENGTH == 512 ? 1 : DNASM_LENGTH == 1024 ? 2 : Chosen::kWarps>;  // for batches that do not fill its blocks
using ChosenBack = Plan<DNASM_LENGTH, DNASM_LENGTH >= 8192 ? 16 : Chosen::kWarps>;  // its sums leave room for one block an SM

const char* run_forward(const Params& p) {
  if constexpr (ChosenOne::kWarps < Chosen::kWarps)
    if (!full_rows<Chosen>(p) && full_rows<ChosenOne>(p)) return launch_forward<ChosenOne, kChosen, true, true>(p);
  if (!full_rows<Chosen>(p)) return launch_forward<Chosen, kChosen, false, true>(p);
  if (p.in_gate.data || p.out_gate.data) return launch_forward<ChosenGated, kChosen, true, true>(p);
  return launch_forward<ChosenPlain, kChosen, true, false>(p);
}
const char* run_backward(const Params& p) {
  if (!full_rows<ChosenBack>(p)) return launch_backward<ChosenBack, kChosen, false, true>(p);
  if (p.in_gate.data || p.out_gate.data) return launch_backward<ChosenBack, kChosen, true, true>(p);
  return launch_backward<ChosenBack, kChosen, true, false>(p);
}
size_t backward_bytes(const Params& p) { return BackwardScratch<ChosenBack>(p).bytes; }

constexpr Kernels kernels = {plan_spectrum_bytes<Chosen>, forward_bytes<Chosen>, backward_bytes,
                             launch_spectrum<Chosen>,     run_forward,           run_backward};
#endif

[[maybe_unused]] const bool announced = (register_kernels(DNASM_LENGTH, kChosen, kernels, DNASM_PRECISION), true);

}  // namespace
}  // namespace dnasm

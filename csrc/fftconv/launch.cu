// The functions of launch.h: checks, choice of plan, order of launches.
#include "launch.h"

#include "schedule.cuh"
#include "wide.cuh"

namespace dnasm {
namespace {

constexpr int kDtypes = 3, kPlans = 8;

Kernels& kernels_of(int64_t plan, int dtype) {
  static Kernels table[kPlans][kDtypes] = {};
  int row = 0;
  while (row + 1 < kPlans && kSmallestPlan << row < plan) ++row;
  return table[row][dtype];
}

const char* check_rows(const Rows& rows, const char* what) { return rows.data ? nullptr : what; }

const char* check(const Params& p) {
  if (p.batch < 1 || p.channels < 1 || p.length < 1) return "batch, channels and length: at least 1 each";
  if (p.filter_length < 1) return "filter: at least one tap";
  if (p.channels > 1 << 24) return "channels: at most 2^24";
  if (p.dtype < 0 || p.dtype >= kDtypes) return "u: float32, float16 or bfloat16";
  if (p.filter_dtype < 0 || p.filter_dtype > kFloat64) return "filter: float32, float16, bfloat16 or float64";
  if (p.precision != kFast) return "precision: no float32 kernels in this build";
  if (!plan_length(p.length, p.precision)) return "length: longer than the longest plan";
  if (!p.spectrum) return "spectrum: no buffer";
  if (reinterpret_cast<uintptr_t>(p.spectrum) % 256) return "spectrum: not 256-byte aligned";
  if (reinterpret_cast<uintptr_t>(p.scratch) % 256) return "scratch: not 256-byte aligned";
  return nullptr;
}

const char* check_kernels(const Params& p) {
  const char* text = check(p);
  if (text) return text;
  if (!has_kernels(plan_length(p.length, p.precision), p.dtype)) return "no kernels for this length and dtype in this build";
  return nullptr;
}

}  // namespace

void register_kernels(int64_t plan, int dtype, const Kernels& kernels) { kernels_of(plan, dtype) = kernels; }
bool has_kernels(int64_t plan, int dtype) { return kernels_of(plan, dtype).forward != nullptr; }

int64_t plan_length(int64_t length, int) {
  for (int64_t plan = kSmallestPlan; plan <= kLargestPlan; plan *= 2)
    if (length <= plan) return plan;
  return 0;
}

size_t spectrum_bytes(const Params& p) {
  return with_plan<size_t>(plan_length(p.length, p.precision), 0, [&](auto plan) {
    const SpectrumLayout layout = spectrum_layout<decltype(plan)>(p);
    return static_cast<size_t>(layout.table_bytes + layout.exponent_bytes + p.channels * layout.channel_bytes);
  });
}

size_t forward_scratch_bytes(const Params&) { return 0; }

size_t backward_scratch_bytes(const Params& p) {
  return with_plan<size_t>(plan_length(p.length, p.precision), 0,
                           [&](auto plan) { return BackwardScratch<decltype(plan)>(p).bytes; });
}

const char* filter_spectrum(const Params& p) {
  if (const char* text = check(p)) return text;
  if (!p.filter) return "filter: absent";
  return with_plan<const char*>(plan_length(p.length, p.precision), "length: no plan", [&](auto plan) {
    using P = decltype(plan);
    using W = Wide<P::kLength>;
    const int64_t rows_a_block = W::kThreads / 32, table_blocks = (P::Rows::kRows + rows_a_block - 1) / rows_a_block;
    const LaunchShape shape{p.channels * W::kSplits + table_blocks, W::kThreads, W::kSharedBytes, p.stream};
    return launch(spectrum_kernel<P::kLength>, shape, p, spectrum_layout<P>(p));
  });
}

const char* forward(const Params& p) {
  if (const char* text = check_kernels(p)) return text;
  if (const char* text = check_rows(p.u, "u: absent")) return text;
  if (const char* text = check_rows(p.y, "y: absent")) return text;
  return kernels_of(plan_length(p.length, p.precision), p.dtype).forward(p);
}

const char* backward(const Params& p) {
  if (const char* text = check_kernels(p)) return text;
  if (const char* text = check_rows(p.u, "u: absent")) return text;
  if (const char* text = check_rows(p.dy, "dy: absent")) return text;
  if (p.din_gate.data && !p.in_gate.data) return "din_gate without in_gate";
  if (p.dout_gate.data && !p.out_gate.data) return "dout_gate without out_gate";
  if (!p.scratch) return "scratch: no buffer";
  const int64_t length = plan_length(p.length, p.precision);
  if (const char* text = kernels_of(length, p.dtype).backward(p)) return text;
  if (!p.dk && !p.dskip) return nullptr;
  return with_plan<const char*>(length, "length: no plan", [&](auto plan) {
    using P = decltype(plan);
    using W = Wide<P::kLength>;
    const BackwardScratch<P> scratch(p);
    const float* base = static_cast<const float*>(p.scratch);
    const LaunchShape shape{p.channels, W::kThreads, W::kSharedBytes, p.stream};
    return launch(filter_gradient_kernel<P::kLength>, shape, p, base, static_cast<int>(scratch.partials),
                  base + scratch.skip_at / 4, static_cast<int>(scratch.skip_partials));
  });
}

}  // namespace dnasm

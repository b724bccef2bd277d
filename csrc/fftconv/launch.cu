// The functions of launch.h: checks, and the choice among the kernels that are here. Host code only.
#include "launch.h"

namespace dnasm {
namespace {

constexpr int64_t kSmallestPlan = 256;
constexpr int kPlans = 8, kDtypes = 3;  // plans of 256 << i

Kernels* kernels_of(int64_t plan, int dtype) {
  static Kernels table[kPlans][kDtypes] = {};
  if (dtype < 0 || dtype >= kDtypes) return nullptr;
  for (int i = 0; i < kPlans; ++i)
    if (kSmallestPlan << i == plan) return &table[i][dtype];
  return nullptr;
}

const Kernels* kernels_for(const Params& p) {
  const Kernels* kernels = kernels_of(plan_length(p.length, p.precision), p.dtype);
  return kernels && kernels->forward ? kernels : nullptr;
}

const char* check(const Params& p) {
  if (p.batch < 1 || p.channels < 1 || p.length < 1) return "batch, channels and length: at least 1 each";
  if (p.filter_length < 1) return "filter: at least one tap";
  if (p.channels > 1 << 24) return "channels: at most 2^24";
  if (p.dtype < 0 || p.dtype >= kDtypes) return "u: float32, float16 or bfloat16";
  if (p.filter_dtype < 0 || p.filter_dtype > kFloat64) return "filter: float32, float16, bfloat16 or float64";
  if (p.precision != kFast) return "precision: no float32 kernels in this build";
  if (!plan_length(p.length, p.precision)) return "length: longer than the longest plan";
  if (!kernels_for(p)) return "no kernels for this length and dtype in this build";
  if (!p.spectrum) return "spectrum: no buffer";
  if (reinterpret_cast<uintptr_t>(p.spectrum) % 256) return "spectrum: not 256-byte aligned";
  if (reinterpret_cast<uintptr_t>(p.scratch) % 256) return "scratch: not 256-byte aligned";
  return nullptr;
}

}  // namespace

void register_kernels(int64_t plan, int dtype, const Kernels& kernels) {
  if (Kernels* row = kernels_of(plan, dtype)) *row = kernels;
}

bool has_kernels(int64_t plan, int dtype) {
  const Kernels* row = kernels_of(plan, dtype);
  return row && row->forward;
}

int64_t plan_length(int64_t length, int) {
  for (int i = 0; i < kPlans; ++i)
    if (length <= kSmallestPlan << i) return kSmallestPlan << i;
  return 0;
}

size_t spectrum_bytes(const Params& p) {
  const Kernels* kernels = kernels_for(p);
  return kernels ? kernels->spectrum_bytes(p) : 0;
}

size_t forward_scratch_bytes(const Params&) { return 0; }

size_t backward_scratch_bytes(const Params& p) {
  const Kernels* kernels = kernels_for(p);
  return kernels ? kernels->backward_scratch_bytes(p) : 0;
}

const char* filter_spectrum(const Params& p) {
  if (const char* text = check(p)) return text;
  return p.filter ? kernels_for(p)->filter_spectrum(p) : "filter: absent";
}

const char* forward(const Params& p) {
  if (const char* text = check(p)) return text;
  if (!p.u.data) return "u: absent";
  if (!p.y.data) return "y: absent";
  return kernels_for(p)->forward(p);
}

const char* backward(const Params& p) {
  if (const char* text = check(p)) return text;
  if (!p.u.data) return "u: absent";
  if (!p.dy.data) return "dy: absent";
  if (p.din_gate.data && !p.in_gate.data) return "din_gate without in_gate";
  if (p.dout_gate.data && !p.out_gate.data) return "dout_gate without out_gate";
  if (!p.scratch) return "scratch: no buffer";
  return kernels_for(p)->backward(p);
}

}  // namespace dnasm

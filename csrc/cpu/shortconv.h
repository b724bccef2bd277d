// Depthwise convolution with a few taps, on a CPU, free of torch, with the operands of short/short.h.
#pragma once
#include "../short/short.h"
#include "crew.h"

namespace dnasm::cpu {

struct ShortParams : dnasm::ShortParams {  // `scratch` and `stream` are not read
    Crew crew;
};

constexpr int kMaxTaps = 64;

void short_forward(const ShortParams& params);
void short_backward(const ShortParams& params);

}  // namespace dnasm::cpu

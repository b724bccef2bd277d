#include "shortconv.h"

#include <algorithm>
#include <vector>

#include "vector.h"

namespace dnasm::cpu {
namespace {

constexpr int64_t kSpan = 512;        // positions of a row that are worked on at a time
constexpr int64_t kChannels = 16;     // channels of a block: one cache line where the channels are neighbours in memory
constexpr int64_t kEdge = 2 * kMaxTaps;  // positions that a span sees of its neighbours

using Buffer = float[kSpan + kEdge];  // a span of one channel

struct Channels {
    int64_t first, count;
};

// Positions [at, at + n) of kChannels rows, zero outside the tensor. Channels are the inner loop where they lie side by
// side, as in a (batch, length, channels) projection, so that such a view is read once and not once a channel.
void gather(const View& v, int64_t length, int64_t b, Channels which, int64_t at, int64_t n, Buffer* to) {
    const auto [first, channels] = which;
    const int64_t begin = std::clamp<int64_t>(-at, 0, n), end = std::clamp<int64_t>(length - at, begin, n);
    for (int64_t c = 0; c < channels; ++c) {
        std::fill(to[c], to[c] + begin, 0.0f);
        std::fill(to[c] + end, to[c] + n, 0.0f);
        if (v.channel != 1 || v.step == 1) read(v.row(b, first + c), at + begin, end - begin, to[c] + begin);
    }
    if (v.channel != 1 || v.step == 1) return;
    const Row rows = v.row(b, first);
    for (int64_t i = begin; i < end; ++i) {
        float line[kChannels];
        read({rows.data, 1, rows.type}, (at + i) * rows.step, channels, line);
        for (int64_t c = 0; c < channels; ++c) to[c][i] = line[c];
    }
}

void scatter(const View& v, int64_t b, Channels which, int64_t at, int64_t n, const Buffer* from) {
    const auto [first, channels] = which;
    if (v.channel != 1 || v.step == 1) {
        for (int64_t c = 0; c < channels; ++c) write(v.row(b, first + c), at, n, from[c]);
        return;
    }
    const Row rows = v.row(b, first);
    for (int64_t i = 0; i < n; ++i) {
        float line[kChannels];
        for (int64_t c = 0; c < channels; ++c) line[c] = from[c][i];
        write({rows.data, 1, rows.type}, (at + i) * rows.step, channels, line);
    }
}

template <class Body> void share(const ShortParams& p, Body body) {  // body(first channel, channels)
    p.crew.each((p.channels + kChannels - 1) / kChannels, [&](int64_t block, int64_t) {
        body(block * kChannels, std::min(kChannels, p.channels - block * kChannels));
    });
}

float dot(const float* a, const float* b, int64_t n) {
    Vec sums = {};
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) sums += load(a + i) * load(b + i);
    float sum = 0;
    for (int lane = 0; lane < kLanes; ++lane) sum += sums[lane];
    for (; i < n; ++i) sum += a[i] * b[i];
    return sum;
}

// What a thread works with: the channels of one block of one row, and buffers for each of them.
struct Block {
    const ShortParams& p;
    Channels which;
    int64_t b = 0, past;
    std::vector<float> memory;

    Block(const ShortParams& params, int64_t first, int64_t count, int buffers)
        : p(params), which{first, count}, past(params.taps - 1 - params.ahead),
          memory(size_t(buffers * kChannels) * (sizeof(Buffer) / sizeof(float))) {}
    Buffer* buffer(int i) { return reinterpret_cast<Buffer*>(memory.data()) + i * kChannels; }
    Channels channels(int64_t stream) const { return {stream * p.channels + which.first, which.count}; }
    const float* taps(int64_t stream, int64_t c) const { return p.weight + (channels(stream).first + c) * p.taps; }
    void read(const View& v, int64_t at, int64_t n, Buffer* to) { gather(v, p.length, b, which, at, n, to); }
    void write(const View& v, int64_t at, int64_t n, const Buffer* from) { scatter(v, b, which, at, n, from); }
    // y = the convolution of a stream at [at, at + n), from x, which is read from `past` before to `ahead` behind.
    void convolve(int64_t stream, int64_t at, int64_t n, Buffer* x, Buffer* y) {
        gather(p.x, p.length, b, channels(stream), at - past, n + p.taps - 1, x);
        for (int64_t c = 0; c < which.count; ++c) {
            const float* w = taps(stream, c);
            std::fill(y[c], y[c] + n, p.bias ? p.bias[channels(stream).first + c] : 0.0f);
            for (int64_t j = 0; j < p.taps; ++j)
                for (int64_t i = 0; i < n; ++i) y[c][i] += w[j] * x[c][i + j];
        }
    }
};

void multiply(Buffer* y, const Buffer* by, int64_t channels, int64_t n) {
    for (int64_t c = 0; c < channels; ++c)
        for (int64_t i = 0; i < n; ++i) y[c][i] *= by[c][i];
}

// The gradient of one stream's x at [at, at + n), and its part in the sums for weight and bias. d: the gradient of its
// convolution from `ahead` before to `past` behind; x: the stream itself from taps - 1 before.
void pull_back(Block& me, int64_t stream, int64_t at, int64_t n, const Buffer* d, const Buffer* x, Buffer* dx, double* sums) {
    const ShortParams& p = me.p;
    for (int64_t c = 0; c < me.which.count; ++c) {
        const float* w = me.taps(stream, c);
        double* sum = sums + (stream * kChannels + c) * (p.taps + 1);
        if (p.dx) std::fill(dx[c], dx[c] + n, 0.0f);
        for (int64_t j = 0; j < p.taps; ++j) {
            if (p.dx)
                for (int64_t i = 0; i < n; ++i) dx[c][i] += w[j] * d[c][i + p.taps - 1 - j];
            if (p.dweight) sum[j] += dot(d[c] + p.ahead, x[c] + p.ahead + j, n);
        }
        for (int64_t i = 0; i < n && p.dbias; ++i) sum[p.taps] += d[c][i + p.ahead];
    }
    if (p.dx) scatter(p.dx, me.b, me.channels(stream), at, n, dx);
}

}  // namespace

void short_forward(const ShortParams& p) {
    share(p, [&](int64_t first, int64_t channels) {
        Block me(p, first, channels, 3);
        Buffer *x = me.buffer(0), *y = me.buffer(1), *other = me.buffer(2);
        for (me.b = 0; me.b < p.batch; ++me.b)
            for (int64_t at = 0; at < p.length; at += kSpan) {
                const int64_t n = std::min(kSpan, p.length - at);
                me.convolve(0, at, n, x, y);
                me.write(p.y, at, n, y);
                if (p.streams == 1) continue;
                me.convolve(1, at, n, x, y);
                me.convolve(2, at, n, x, other);
                multiply(y, other, channels, n);
                me.write(p.mixed, at, n, y);
            }
    });
}

void short_backward(const ShortParams& p) {
    const int64_t edge = p.taps - 1;
    share(p, [&](int64_t first, int64_t channels) {
        Block me(p, first, channels, 6);
        Buffer *x = me.buffer(0), *d = me.buffer(1), *dx = me.buffer(2);
        Buffer *x2 = me.buffer(3), *c1 = me.buffer(4), *c2 = me.buffer(5);
        std::vector<double> sums(size_t(p.streams * kChannels * (p.taps + 1)));
        for (me.b = 0; me.b < p.batch; ++me.b)
            for (int64_t at = 0; at < p.length; at += kSpan) {
                const int64_t n = std::min(kSpan, p.length - at);
                me.read(p.dy, at - p.ahead, n + edge, d);
                gather(p.x, p.length, me.b, me.channels(0), at - edge, n + 2 * edge, x);
                pull_back(me, 0, at, n, d, x, dx, sums.data());
                if (p.streams == 1) continue;
                me.read(p.dmixed, at - p.ahead, n + edge, d);
                me.convolve(1, at - p.ahead, n + edge, x, c1);
                me.convolve(2, at - p.ahead, n + edge, x2, c2);
                multiply(c1, d, channels, n + edge);
                multiply(c2, d, channels, n + edge);
                pull_back(me, 1, at, n, c2, x, dx, sums.data());
                pull_back(me, 2, at, n, c1, x2, dx, sums.data());
            }
        for (int64_t stream = 0; stream < p.streams; ++stream)
            for (int64_t c = 0; c < channels; ++c) {
                const double* sum = sums.data() + (stream * kChannels + c) * (p.taps + 1);
                const int64_t row = stream * p.channels + first + c;
                for (int64_t j = 0; j < p.taps && p.dweight; ++j) p.dweight[row * p.taps + j] = float(sum[j]);
                if (p.dbias) p.dbias[row] = float(sum[p.taps]);
            }
    });
}

}  // namespace dnasm::cpu

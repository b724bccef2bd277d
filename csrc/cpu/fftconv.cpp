#include "fftconv.h"

#include <cmath>
#include <memory>

#include "leaves.h"
#include "signal.h"
#include "transform.h"

namespace dnasm::cpu {
namespace {

using PlanPtr = std::shared_ptr<const Plan>;

std::vector<PlanPtr> plans_of(const Params& p) {
    std::vector<PlanPtr> plans;
    for (const Group& group : p.groups) plans.push_back(plan_for(group.plan_length, group.radices));
    return plans;
}

constexpr int64_t kWorth = 1 << 14;    // elements below which a second worker costs more than it brings
constexpr size_t kTogether = 1 << 18;  // plan length from which a transform a thread would cost too much memory

int64_t elements(const Params& p) {
    int64_t n = 0;
    for (const Group& group : p.groups)
        for (const auto& [start, end] : group.pieces) n += end - start;
    return n * p.channels * std::max<int64_t>(1, p.batch);
}

// One plan's share of a call: what the functions below work with.
struct Task {
    const Params& p;
    const Plan& plan;
    Crew crew;          // for the inside of one transform
    bool tiled;         // sequences longer than the plan, which then holds all taps
    int64_t shift = 0;  // a filter of both sides has no one past: in tiles it is a causal one, this much late

    Task(const Params& params, const Plan& its, const Group& group, const Crew& inner)
        : p(params), plan(its), crew(inner), tiled(false) {
        for (const auto& [start, end] : group.pieces) tiled = tiled || end - start > plan.length;
        if (tiled && p.bidirectional) shift = p.filter_length;
    }
    void open(const Tile& tile, Cvec* z) const { cpu::open(plan, crew, tile, z); }
    // A tile with what the one before it owes.
    void open_with_past(const Signal& x, int64_t at, Cvec* z) const { open({x, at, at > 0 ? -plan.length : 0}, z); }
    template <class Leaf> void sweep(const Leaf& leaf, Cvec* const (&z)[Leaf::kSignals]) const {
        cpu::sweep(plan, crew, leaf, z);
    }
    void close(const Cvec* z, int64_t length, const Sink& sink) const { cpu::close(plan, crew, z, length, sink); }
};

// How threads are used: side by side on items, or, where one transform outgrows the caches, together on each.
struct Deal {
    size_t longest = 0;  // vectors of the longest transform
    Crew outer, inner;
    std::unique_ptr<Gang> gang;

    explicit Deal(const Params& p) {
        for (const Group& group : p.groups) longest = std::max(longest, size_t(group.plan_length / kLanes));
        const int64_t useful = std::clamp<int64_t>(p.crew.workers, 1, 1 + elements(p) / kWorth);
        if (!together()) {
            outer = {p.crew.threads, useful};
        } else if (useful > 1) {
            gang = std::make_unique<Gang>(useful);
            inner = {gang.get(), useful};
        }
    }
    bool together() const { return longest * kLanes >= kTogether; }

    // body(item, scratch): scratch holds `buffers` transforms of the longest plan.
    template <class Body> void each(int64_t items, int buffers, Body body) const {
        const Aligned<Cvec> scratch(longest * buffers * std::max<int64_t>(1, std::min(outer.workers, items)));
        auto work = [&](int64_t item, int64_t worker) { body(item, scratch.get() + worker * longest * buffers); };
        outer.each(items, work);
    }
};

struct Chunks {  // how rows are dealt out: a channel at a time, or part of its batch where channels are few
    int64_t per_channel, rows;
    Chunks(int64_t batch, int64_t channels, int64_t wanted) {
        const int64_t share = (wanted + channels - 1) / std::max<int64_t>(1, channels);
        per_channel = std::clamp<int64_t>(share, 1, std::max<int64_t>(1, batch));
        rows = (batch + per_channel - 1) / per_channel;
        per_channel = rows ? (batch + rows - 1) / rows : 1;
    }
};

// Values of channel d's filter over the plan's length, so that the inverse needs no factor.
void filter_values(const Task& task, int64_t d, Cvec* z, Cvec* values) {
    const Params& p = task.p;
    const Strided k{const_cast<void*>(p.filter), p.filter_length, (1 + p.bidirectional) * p.filter_length, 1};
    const Row past = row_of(k, p.filter_dtype, 0, d), future = row_of(k, p.filter_dtype, 1, d);
    StoreSpectrum<false> store{values, 1.0f / float(task.plan.length)};
    if (task.shift) {
        std::vector<float> taps(size_t(2 * p.filter_length));
        read(future, 0, p.filter_length, taps.data());
        std::reverse(taps.begin(), taps.begin() + p.filter_length);
        read(past, 0, p.filter_length, taps.data() + p.filter_length);
        const Signal both{{reinterpret_cast<char*>(taps.data())}, {}, 0, 2 * p.filter_length};
        task.open({both, 0}, z);
        return task.sweep(store, {z});
    }
    const Signal lags{past, {}, 0, std::min(p.filter_length, task.plan.length)};
    task.open({lags, 0}, z);
    task.sweep(store, {z});
    if (!p.bidirectional) return;
    const Signal ahead{future, {}, 0, std::min(p.filter_length, task.plan.length - 1)};
    task.open({ahead, -1}, z);  // from lag 1 on: lag 0 is the past's
    StoreSpectrum<true> add{values, store.factor};
    task.sweep(add, {z});
}

const Cvec* filter_of(const Task& task, int64_t d, Cvec* z, Cvec* values) {
    if (task.p.spectrum) return static_cast<const Cvec*>(task.p.spectrum) + d * task.plan.length / kLanes;
    filter_values(task, d, z, values);
    return values;
}

struct Sequence {  // of one channel: samples [piece.first, piece.second) of row (b, d)
    const Params& p;
    int64_t b, d;
    Piece piece;
    float skip;

    Sequence(const Params& params, int64_t row, int64_t channel, Piece its)
        : p(params), b(row), d(channel), piece(its), skip(p.skip ? p.skip[d] : 0) {}
    Row row(const Rows& tensor) const { return row_of(strided(tensor), p.dtype, b, d); }
    Signal signal(const Rows& tensor, const Rows& gate) const { return {row(tensor), row(gate), piece.first, piece.second}; }
    Signal x() const { return signal(p.u, p.in_gate); }
    Signal g() const { return signal(p.dy, p.out_gate); }
    // sums += skip * from, at [at, at + n) of the sequence
    void add_skip(const Signal& from, int64_t at, int64_t n, float* sums) const {
        if (skip == 0) return;
        float samples[kColumns];
        from.fill(at, n, samples);
        for (int64_t i = 0; i < n; ++i) sums[i] += skip * samples[i];
    }
    // to = sums * by, in place
    void put(const Rows& to, const Rows& by, int64_t at, int64_t n, float* sums) const {
        scale(row(by), piece.first + at, n, sums);
        write(row(to), piece.first + at, n, sums);
    }
    // From the convolution: y with by = out_gate, the output gate's gradient with by = dy.
    void finish_output(const Rows& to, const Rows& by, int64_t at, int64_t n, float* conv) const {
        add_skip(x(), at, n, conv);
        put(to, by, at, n, conv);
    }
    // From the convolution's part of the signal's gradient: du and din_gate.
    void finish_input(int64_t at, int64_t n, float* dx) const {
        float other[kColumns];
        add_skip(g(), at, n, dx);
        std::copy_n(dx, n, other);
        if (p.din_gate.data) put(p.din_gate, p.u, at, n, other);
        if (p.du.data) put(p.du, p.in_gate, at, n, dx);
    }
};

void forward_piece(const Task& task, const Cvec* filter, const Sequence& row, Cvec* z) {
    const Signal x = row.x();
    for (int64_t tile = 0; tile < x.length(); tile += task.plan.length) {
        task.open_with_past(x, tile + task.shift, z);
        Multiply<false> leaf{filter};
        task.sweep(leaf, {z});
        task.close(z, std::min(task.plan.length, x.length() - tile), [&](int64_t at, int64_t n, float* conv) {
            row.finish_output(task.p.y, task.p.out_gate, tile + at, n, conv);
        });
    }
}

// Sum of g x over a sequence: the gradient of the skip.
double correlate_at_zero(const Sequence& row) {
    const Signal x = row.x(), g = row.g();
    double total = 0;
    for (int64_t at = 0; at < x.length(); at += kColumns) {
        alignas(32) float a[kColumns], b[kColumns];
        x.fill(at, kColumns, a);
        g.fill(at, kColumns, b);
        Vec sums = {};
        for (int64_t i = 0; i < kColumns; i += kLanes) sums += load(a + i) * load(b + i);
        for (int lane = 0; lane < kLanes; ++lane) total += sums[lane];
    }
    return total;
}

// The signals' gradients of one sequence, and its part in the filter's: `product` += G conj X. z: two buffers.
void backward_piece(const Task& task, const Cvec* filter, Cvec* product, const Sequence& row, Cvec* const (&z)[2]) {
    const Params& p = task.p;
    const int64_t size = task.plan.length;
    const Signal x = row.x(), g = row.g();
    const bool conv = p.dout_gate.data, back = p.du.data || p.din_gate.data, tiled = x.length() > size;
    for (int64_t tile = 0; tile < x.length(); tile += size) {
        const int64_t n = std::min(size, x.length() - tile);
        task.open_with_past(x, tile + task.shift, z[0]);
        task.open({g, tile}, z[1]);
        auto correlate = [&](auto leaf) { task.sweep(leaf, z); };
        if (conv && back && !tiled) correlate(Correlate<true, true>{filter, product});
        else if (conv) correlate(Correlate<true, false>{filter, product});
        else if (back && !tiled) correlate(Correlate<false, true>{filter, product});
        else correlate(Correlate<false, false>{filter, product});
        auto gate = [&](int64_t at, int64_t count, float* s) { row.finish_output(p.dout_gate, p.dy, tile + at, count, s); };
        if (conv) task.close(z[0], n, gate);
        if (!back) continue;
        if (tiled) {
            task.open({g, tile - task.shift, size}, z[1]);
            Multiply<true> leaf{filter};
            task.sweep(leaf, {z[1]});
        }
        task.close(z[1], n, [&](int64_t at, int64_t count, float* dx) { row.finish_input(tile + at, count, dx); });
    }
}

// Adds the lags of a product G conj X, which it spoils, to the gradient of channel d's taps.
void add_filter_gradient(const Task& task, const Cvec* product, Cvec* z, float* dk) {
    const Params& p = task.p;
    const int64_t size = task.plan.length, shift = task.shift;
    const float factor = 1.0f / float(size);
    std::copy_n(product, size / kLanes, z);
    Return<false> leaf;
    task.sweep(leaf, {z});
    task.close(z, std::min(p.filter_length + shift, size), [&](int64_t at, int64_t n, float* lags) {
        for (int64_t i = 0; i < n; ++i) {
            const int64_t lag = at + i - shift;
            dk[lag < 0 ? p.filter_length - 1 - lag : lag] += factor * lags[i];
        }
    });
    if (!p.bidirectional || shift) return;
    std::copy_n(product, size / kLanes, z);
    Return<true> conjugate;
    task.sweep(conjugate, {z});
    task.close(z, std::min(p.filter_length + 1, size), [&](int64_t at, int64_t n, float* lags) {
        for (int64_t i = at == 0; i < n; ++i) dk[p.filter_length + at + i - 1] += factor * lags[i];
    });
}

}  // namespace

size_t spectrum_bytes(const Params& p) {
    return p.groups.size() == 1 ? size_t(p.channels * p.groups[0].plan_length) * 2 * sizeof(float) : 0;
}

void filter_spectrum(const Params& p) {
    const auto plan = plans_of(p)[0];
    const Deal deal(p);
    deal.each(p.channels, 1, [&](int64_t d, Cvec* z) {
        Cvec* values = static_cast<Cvec*>(p.spectrum) + d * plan->length / kLanes;
        filter_values({p, *plan, p.groups[0], deal.inner}, d, z, values);
    });
}

void forward(const Params& p) {
    const auto plans = plans_of(p);
    const Deal deal(p);
    const Chunks chunks(p.batch, p.channels, deal.outer.workers > 1 ? 4 * deal.outer.workers : 1);
    deal.each(p.channels * chunks.per_channel, 2, [&](int64_t item, Cvec* scratch) {
        const int64_t d = item / chunks.per_channel, first = item % chunks.per_channel * chunks.rows;
        for (size_t i = 0; i < plans.size(); ++i) {
            const Task task{p, *plans[i], p.groups[i], deal.inner};
            const Cvec* filter = filter_of(task, d, scratch, scratch + deal.longest);
            for (int64_t b = first; b < std::min(p.batch, first + chunks.rows); ++b)
                for (const Piece& piece : p.groups[i].pieces) {
                    if (b + 1 < p.batch) {
                        const Sequence next{p, b + 1, d, piece};
                        for (const Rows* tensor : {&p.u, &p.in_gate, &p.out_gate}) prefetch<0>(next.row(*tensor), piece);
                        prefetch<1>(next.row(p.y), piece);
                    }
                    forward_piece(task, filter, {p, b, d, piece}, scratch);
                }
        }
    });
}

void backward(const Params& p) {
    const auto plans = plans_of(p);
    const Deal deal(p);
    // Sums over the batch are taken in parts that depend on the shape alone: any number of workers gives the same bits.
    const Chunks chunks(p.batch, p.channels, deal.together() ? 1 : 32);
    const int64_t parts = chunks.per_channel, lags = p.filter_length * (p.bidirectional ? 2 : 1);
    if (p.dk) std::fill_n(p.dk, p.channels * lags, 0.0f);
    std::vector<float> dk(p.dk && parts > 1 ? size_t(p.channels * parts * lags) : 0);
    std::vector<double> dskip(size_t(p.channels * parts));
    deal.each(p.channels * parts, 4, [&](int64_t item, Cvec* scratch) {
        const int64_t d = item / parts, first = item % parts * chunks.rows;
        float* taps = !p.dk ? nullptr : parts > 1 ? dk.data() + item * lags : p.dk + d * lags;
        for (size_t i = 0; i < plans.size(); ++i) {
            const Task task{p, *plans[i], p.groups[i], deal.inner};
            Cvec *z[2] = {scratch, scratch + deal.longest}, *product = scratch + 3 * deal.longest;
            const Cvec* filter = filter_of(task, d, z[0], scratch + 2 * deal.longest);
            if (taps) std::fill_n(product, plans[i]->length / kLanes, Cvec(Vec{}, Vec{}));
            for (int64_t b = first; b < std::min(p.batch, first + chunks.rows); ++b)
                for (const Piece& piece : p.groups[i].pieces) {
                    const Sequence row{p, b, d, piece};
                    backward_piece(task, filter, taps ? product : nullptr, row, z);
                    if (p.dskip) dskip[size_t(item)] += correlate_at_zero(row);
                }
            if (taps) add_filter_gradient(task, product, z[0], taps);
        }
    });
    for (int64_t d = 0; d < p.channels; ++d) {
        double sum = 0;
        for (int64_t part = 0; part < parts; ++part) {
            sum += dskip[size_t(d * parts + part)];
            const float* taps = dk.data() + (d * parts + part) * lags;
            for (int64_t i = 0; i < lags && !dk.empty(); ++i) p.dk[d * lags + i] += taps[i];
        }
        if (p.dskip) p.dskip[d] = float(sum);
    }
}

}  // namespace dnasm::cpu

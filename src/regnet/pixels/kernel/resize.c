/* Pillow's two-pass resize of 8-bit images, bit for bit, computing only a crop.
 *
 * The weights are Pillow's: doubles, normalised, then 22 fractional bits rounded half away from
 * zero. A pass sums pixel * weight in 32 bits from one half, shifts and clips to 8 bits; sums of
 * whole numbers are exact in any order, so they are vectorised freely. The source is any view of
 * pixels with three channels side by side: rows may run backwards, or lie along the memory's
 * columns, so that an image is turned upright without a copy.
 */

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "doubles are not rounded after each operation here: weights would differ from Pillow's"
#endif

/* For processors that have AVX2, which is asked when the code runs. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(REGNET_PLAIN)
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))
#endif

#define BITS 22
#define HALF (1 << (BITS - 1))
#define BLOCK 64
#define EXPORT __attribute__((visibility("default")))

/* One axis: of `target` pixels made of `source`, the `count` from `start` on are wanted. */
typedef struct {
    int64_t source, target, start, count;
} Axis;

/* The taps of the wanted pixels: `length[o]` of them from source pixel `first[o]` on. */
typedef struct {
    int64_t *first;
    int32_t *length, *weights; /* of pixel o: weights[o * most] and on */
    int64_t most, low, high;   /* longest row of weights; all taps lie in low .. high - 1 */
} Taps;

/* Pixels in memory: steps in bytes from one to the next across and down, either may be negative. */
typedef struct {
    const uint8_t *pixels;
    ptrdiff_t across, down;
} View;

static double cubic(double x) {
    if (x < 0.0) x = -x;
    if (x < 1.0) return (1.5 * x - 2.5) * x * x + 1.0;
    if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5;
    return 0.0;
}

static double triangle(double x) {
    if (x < 0.0) x = -x;
    return x < 1.0 ? 1.0 - x : 0.0;
}

/* Fill in the taps of one wanted pixel; `row` has room for all of them in doubles. */
static void weigh(Taps *taps, const Axis *axis, int64_t o, int bicubic, double *row) {
    double scale = (double)(float)axis->source / (double)axis->target;
    double stretch = scale < 1.0 ? 1.0 : scale, sum = 0.0;
    double support = (bicubic ? 2.0 : 1.0) * stretch;
    double center = ((double)(axis->start + o) + 0.5) * scale;
    int64_t first = (int64_t)(center - support + 0.5), end = (int64_t)(center + support + 0.5);
    if (first < 0) first = 0;
    if (end > axis->source) end = axis->source;
    for (int64_t k = 0; k < end - first; k++) {
        double x = ((double)(k + first) - center + 0.5) * (1.0 / stretch);
        row[k] = bicubic ? cubic(x) : triangle(x);
        sum += row[k];
    }
    int32_t *weights = taps->weights + o * taps->most;
    for (int64_t k = 0; k < end - first; k++) {
        double weight = (sum != 0.0 ? row[k] / sum : row[k]) * (double)(1 << BITS);
        weights[k] = (int32_t)(weight < 0.0 ? weight - 0.5 : weight + 0.5);
    }
    taps->first[o] = first;
    taps->length[o] = (int32_t)(end - first);
}

/* An axis that keeps its length has one tap a pixel. */
static void copy_taps(Taps *taps, const Axis *axis) {
    for (int64_t o = 0; o < axis->count; o++) {
        taps->first[o] = axis->start + o;
        taps->length[o] = 1;
        taps->weights[o * taps->most] = 1 << BITS;
    }
}

static void free_taps(Taps *taps) {
    free(taps->first);
    free(taps->length);
    free(taps->weights);
}

/* Return 0, or -1 where memory is short; free_taps is due in either case. */
static int make_taps(Taps *taps, const Axis *axis, int bicubic) {
    double scale = (double)(float)axis->source / (double)axis->target;
    double most = ceil((bicubic ? 2.0 : 1.0) * (scale < 1.0 ? 1.0 : scale)) * 2.0 + 1.0;
    taps->most = most < (double)axis->source ? (int64_t)most : axis->source;
    taps->first = calloc(axis->count, sizeof *taps->first);
    taps->length = calloc(axis->count, sizeof *taps->length);
    taps->weights = NULL;
    if (axis->count <= INT32_MAX / taps->most)
        taps->weights = calloc(axis->count * taps->most, sizeof *taps->weights);
    double *row = calloc(taps->most, sizeof *row);
    int short_of_memory = !taps->first || !taps->length || !taps->weights || !row;
    if (!short_of_memory) {
        if (axis->source == axis->target) copy_taps(taps, axis);
        else for (int64_t o = 0; o < axis->count; o++) weigh(taps, axis, o, bicubic, row);
        taps->low = taps->first[0];
        taps->high = taps->first[axis->count - 1] + taps->length[axis->count - 1];
    }
    free(row);
    return -short_of_memory;
}

static uint8_t clip(int32_t sum) {
    int32_t value = sum >> BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* Resize a line along itself: pixels `step` bytes apart become packed pixels. */
static void line_along(const uint8_t *source, ptrdiff_t step, const Taps *taps, int64_t count,
                       uint8_t *target) {
    for (int64_t o = 0; o < count; o++, target += 3) {
        const uint8_t *pixel = source + (taps->first[o] - taps->low) * step;
        const int32_t *weight = taps->weights + o * taps->most;
        int32_t a = HALF, b = HALF, c = HALF;
        for (int32_t k = 0; k < taps->length[o]; k++, pixel += step) {
            a += pixel[0] * weight[k];
            b += pixel[1] * weight[k];
            c += pixel[2] * weight[k];
        }
        target[0] = clip(a);
        target[1] = clip(b);
        target[2] = clip(c);
    }
}

/* Weigh `bytes` bytes of `length` lines, `line` bytes apart, from byte `at` on. */
static void line_between(const uint8_t *source, ptrdiff_t line, int64_t at, int64_t bytes,
                         const int32_t *weights, int32_t length, uint8_t *target) {
    for (; at + BLOCK <= bytes; at += BLOCK) { /* of a size known to the compiler: it vectorises */
        int32_t sums[BLOCK];
        for (int i = 0; i < BLOCK; i++) sums[i] = HALF;
        for (int32_t k = 0; k < length; k++)
            for (int i = 0; i < BLOCK; i++) sums[i] += source[at + k * line + i] * weights[k];
        for (int i = 0; i < BLOCK; i++) target[at + i] = clip(sums[i]);
    }
    for (; at < bytes; at++) {
        int32_t sum = HALF;
        for (int32_t k = 0; k < length; k++) sum += source[at + k * line] * weights[k];
        target[at] = clip(sum);
    }
}

#ifdef AVX2
static int has_avx2(void) { return __builtin_cpu_supports("avx2"); }

AVX2 static __m128i pixel_sums(const uint8_t *pixel, __m128i weight) {
    int32_t bytes;
    memcpy(&bytes, pixel, 4); /* the fourth is whatever comes next, and is not used */
    return _mm_mullo_epi32(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes)), weight);
}

AVX2 static void store_pixel(uint8_t *target, int32_t bytes) { memcpy(target, &bytes, 3); }

/* Resize four lines along themselves. Reads one byte past a pixel. */
AVX2 static void lines_along_avx2(const uint8_t *source, ptrdiff_t step, ptrdiff_t line,
                                  const Taps *taps, int64_t count, uint8_t *target, ptrdiff_t out) {
    for (int64_t o = 0; o < count; o++, target += 3) {
        const uint8_t *pixel = source + (taps->first[o] - taps->low) * step;
        const int32_t *weights = taps->weights + o * taps->most;
        __m128i a = _mm_set1_epi32(HALF), b = a, c = a, d = a;
        for (int32_t k = 0; k < taps->length[o]; k++, pixel += step) {
            __m128i weight = _mm_set1_epi32(weights[k]);
            a = _mm_add_epi32(a, pixel_sums(pixel, weight));
            b = _mm_add_epi32(b, pixel_sums(pixel + line, weight));
            c = _mm_add_epi32(c, pixel_sums(pixel + 2 * line, weight));
            d = _mm_add_epi32(d, pixel_sums(pixel + 3 * line, weight));
        }
        __m128i low = _mm_packs_epi32(_mm_srai_epi32(a, BITS), _mm_srai_epi32(b, BITS));
        __m128i high = _mm_packs_epi32(_mm_srai_epi32(c, BITS), _mm_srai_epi32(d, BITS));
        __m128i bytes = _mm_packus_epi16(low, high);
        store_pixel(target, _mm_extract_epi32(bytes, 0));
        store_pixel(target + out, _mm_extract_epi32(bytes, 1));
        store_pixel(target + 2 * out, _mm_extract_epi32(bytes, 2));
        store_pixel(target + 3 * out, _mm_extract_epi32(bytes, 3));
    }
}

AVX2 static __m256i byte_sums(const uint8_t *bytes, __m256i weight) {
    __m128i eight = _mm_loadl_epi64((const __m128i *)bytes);
    return _mm256_mullo_epi32(_mm256_cvtepu8_epi32(eight), weight);
}

/* Weigh bytes as `line_between` does, 32 at a time; returns how many are done. */
AVX2 static int64_t line_between_avx2(const uint8_t *source, ptrdiff_t line, int64_t bytes,
                                      const int32_t *weights, int32_t length, uint8_t *target) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* packing works by halves */
    int64_t at = 0;
    for (; at + 32 <= bytes; at += 32) {
        const uint8_t *from = source + at;
        __m256i a = _mm256_set1_epi32(HALF), b = a, c = a, d = a;
        for (int32_t k = 0; k < length; k++, from += line) {
            __m256i weight = _mm256_set1_epi32(weights[k]);
            a = _mm256_add_epi32(a, byte_sums(from, weight));
            b = _mm256_add_epi32(b, byte_sums(from + 8, weight));
            c = _mm256_add_epi32(c, byte_sums(from + 16, weight));
            d = _mm256_add_epi32(d, byte_sums(from + 24, weight));
        }
        __m256i low = _mm256_packs_epi32(_mm256_srai_epi32(a, BITS), _mm256_srai_epi32(b, BITS));
        __m256i high = _mm256_packs_epi32(_mm256_srai_epi32(c, BITS), _mm256_srai_epi32(d, BITS));
        __m256i packed = _mm256_packus_epi16(low, high);
        packed = _mm256_permutevar8x32_epi32(packed, order);
        _mm256_storeu_si256((__m256i *)(target + at), packed);
    }
    return at;
}
#endif

/* Resize `lines` lines, `line` bytes apart, along themselves into rows of `out` bytes. May read one
 * byte past a pixel. */
static void along(const uint8_t *source, ptrdiff_t step, ptrdiff_t line, int64_t lines,
                  const Taps *taps, int64_t count, uint8_t *target, ptrdiff_t out) {
#ifdef AVX2
    for (; lines >= 4 && has_avx2(); lines -= 4, source += 4 * line, target += 4 * out)
        lines_along_avx2(source, step, line, taps, count, target, out);
#endif
    for (; lines > 0; lines--, source += line, target += out)
        line_along(source, step, taps, count, target);
}

/* Resize across lines of `bytes` bytes, `line` bytes apart, whatever pixels they hold, into rows of
 * `out` bytes. */
static void between(const uint8_t *source, ptrdiff_t line, int64_t bytes, const Taps *taps,
                    int64_t count, uint8_t *target, ptrdiff_t out) {
    for (int64_t o = 0; o < count; o++, target += out) {
        const uint8_t *from = source + (taps->first[o] - taps->low) * line;
        const int32_t *weights = taps->weights + o * taps->most;
        int64_t done = 0;
#ifdef AVX2
        if (has_avx2())
            done = line_between_avx2(from, line, bytes, weights, taps->length[o], target);
#endif
        line_between(from, line, done, bytes, weights, taps->length[o], target);
    }
}

/* Run `along` where `end` is the end of the memory: the last line is copied where a pixel in it has
 * no byte behind it. Returns 0, or -1 where memory is short. */
static int along_to(const uint8_t *end, const uint8_t *source, ptrdiff_t step, ptrdiff_t line,
                    int64_t lines, const Taps *taps, int64_t count, uint8_t *target) {
    ptrdiff_t out = 3 * count, reach = (taps->high - taps->low - 1) * step;
    if (line < 0) { /* from the other end, so that the last line is the highest in memory */
        source += (lines - 1) * line;
        target += (lines - 1) * out;
        line = -line;
        out = -out;
    }
    const uint8_t *last = source + (lines - 1) * line;
    const uint8_t *low = reach < 0 ? last + reach : last;
    ptrdiff_t bytes = (reach < 0 ? -reach : reach) + 3;
    if (end - low > bytes) {
        along(source, step, line, lines, taps, count, target, out);
        return 0;
    }
    uint8_t *copy = malloc(bytes + 1);
    if (!copy) return -1;
    memcpy(copy, low, bytes);
    copy[bytes] = 0;
    along(source, step, line, lines - 1, taps, count, target, out);
    along(copy + (last - low), step, line, 1, taps, count, target + (lines - 1) * out, out);
    free(copy);
    return 0;
}

/* Return room for rows * columns bytes and one more, or NULL. */
static uint8_t *room(int64_t rows, int64_t columns) {
    return rows > (PTRDIFF_MAX - 1) / columns ? NULL : calloc(rows * columns + 1, 1);
}

/* Both passes where the first goes along the lines of the memory. `tile` becomes (b, a). */
static int along_then_between(const uint8_t *end, const uint8_t *source, ptrdiff_t step_a,
                              ptrdiff_t step_b, const Taps *a, int64_t count_a, const Taps *b,
                              int64_t count_b, uint8_t *tile) {
    int64_t lines = b->high - b->low;
    uint8_t *rows = room(lines, 3 * count_a);
    if (!rows) return -1;
    int failed = along_to(end, source, step_a, step_b, lines, a, count_a, rows);
    if (!failed) between(rows, 3 * count_a, 3 * count_a, b, count_b, tile, 3 * count_a);
    free(rows);
    return failed;
}

/* Both passes where the first goes across the lines of the memory. `tile` becomes (a, b). */
static int between_then_along(const uint8_t *source, ptrdiff_t step_a, ptrdiff_t step_b,
                              const Taps *a, int64_t count_a, const Taps *b, int64_t count_b,
                              uint8_t *tile) {
    ptrdiff_t reach = (b->high - b->low - 1) * step_b, back = reach < 0 ? -reach : 0;
    int64_t bytes = (reach < 0 ? -reach : reach) + 3;
    uint8_t *rows = room(count_a, bytes);
    if (!rows) return -1;
    between(source - back, step_a, bytes, a, count_a, rows, bytes);
    along(rows + back, step_b, bytes, count_a, b, count_b, tile, 3 * count_b);
    free(rows);
    return 0;
}

/* Copy a tile of pixels, `across` and `down` bytes apart, to packed rows; `swap` turns RGB to BGR. */
static void pack(const uint8_t *tile, ptrdiff_t across, ptrdiff_t down, int64_t width,
                 int64_t height, int swap, uint8_t *target) {
    int first = swap ? 2 : 0;
    for (int64_t y = 0; y < height; y++) {
        const uint8_t *from = tile + y * down;
        for (int64_t x = 0; x < width; x++, from += across, target += 3) {
            target[0] = from[first];
            target[1] = from[1];
            target[2] = from[2 - first];
        }
    }
}

static int passes(const uint8_t *end, View view, const Axis *across, const Axis *down,
                  const Taps *x, const Taps *y, int swap, uint8_t *target) {
    int vertical = down->source - down->target
                   > (across->source > across->target ? 2 * (across->source - across->target) : 0);
    int turned = llabs(view.across) > llabs(view.down); /* the memory's lines are columns */
    int packed = !swap && !turned;
    uint8_t *tile = packed ? target : room(across->count, 3 * down->count);
    if (!tile) return -1;
    const uint8_t *source = view.pixels + x->low * view.across + y->low * view.down;
    const Taps *a = vertical ? y : x, *b = vertical ? x : y;
    int64_t count_a = vertical ? down->count : across->count;
    int64_t count_b = vertical ? across->count : down->count;
    ptrdiff_t step_a = vertical ? view.down : view.across;
    ptrdiff_t step_b = vertical ? view.across : view.down;
    int failed = vertical == turned
        ? along_then_between(end, source, step_a, step_b, a, count_a, b, count_b, tile)
        : between_then_along(source, step_a, step_b, a, count_a, b, count_b, tile);
    if (!failed && !packed)
        pack(tile, turned ? 3 * down->count : 3, turned ? 3 : 3 * across->count, across->count,
             down->count, swap, target);
    if (!packed) free(tile);
    return failed;
}

/* What this file computes and how it is called; regnet.pixels.kernel uses no library of another number. */
EXPORT int32_t regnet_kernel_version(void) { return 1; }

/* Resize a view of pixels and write the wanted part of it to `target`, packed.
 *
 * `end` is the end of the view's memory, `steps` are across and down in bytes, an axis is its
 * source, target, start and count. Returns 0, or -1 where memory is short. */
EXPORT int32_t regnet_resize(const uint8_t *pixels, const uint8_t *end, const int64_t steps[2],
                             const int64_t across_axis[4], const int64_t down_axis[4],
                             int32_t bicubic, int32_t swap, uint8_t *target) {
    Axis across = {across_axis[0], across_axis[1], across_axis[2], across_axis[3]};
    Axis down = {down_axis[0], down_axis[1], down_axis[2], down_axis[3]};
    View view = {pixels, steps[0], steps[1]};
    Taps x = {0}, y = {0};
    int failed = make_taps(&x, &across, bicubic) || make_taps(&y, &down, bicubic);
    if (!failed) failed = passes(end, view, &across, &down, &x, &y, swap, target);
    free_taps(&x);
    free_taps(&y);
    return failed ? -1 : 0;
}

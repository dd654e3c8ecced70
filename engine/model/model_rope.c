/* model_rope.c: inverse frequencies of the rotary embedding, with the scalings that stretch a context.
 *
 * Plain: inv_freq[i] = theta^(-2i / dim) (RoFormer, arXiv 2104.09864). The scalings follow transformers'
 * modeling_rope_utils.py, which the models' makers wrote or approved:
 *   linear  position interpolation (arXiv 2306.15595): all divided by factor
 *   llama3  Llama 3.1: wavelengths beyond original_context / low_freq_factor divided by factor, those below
 *           original_context / high_freq_factor kept, a smooth passage between
 *   yarn    NTK by parts (arXiv 2309.00071): a ramp over the pairs from kept to divided, and cos and sin scaled
 * Computed in double, rounded once.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/model/model_load.h"

static const double pi = 3.14159265358979323846;

int rope_scaling_find(const char *name, enum rope_scaling *out)
{
	static const struct {
		const char *name;
		enum rope_scaling scaling;
	} known[] = {
		{"default", ROPE_DEFAULT}, {"none", ROPE_DEFAULT}, {"linear", ROPE_LINEAR}, {"llama3", ROPE_LLAMA3},
		{"yarn", ROPE_YARN},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (strcmp(known[i].name, name) == 0) {
			*out = known[i].scaling;
			return 1;
		}
	}
	return 0;
}

static int is_positive(double x)
{
	return isfinite(x) && x > 0;
}

static int check_spec(const struct rope_spec *s, struct err *err)
{
	if (s->dim < 2 || s->dim % 2 != 0 || s->dim > s->head_dim)
		return err_set(err, ERR_MODEL, "rope: %d rotated elements of a head of %d, not an even part of it", s->dim,
			s->head_dim);
	if (!(isfinite(s->theta) && s->theta > 1))
		return err_set(err, ERR_MODEL, "rope: base frequency is %g, not above 1", s->theta);
	if (s->scaling != ROPE_DEFAULT && !is_positive(s->factor))
		return err_set(err, ERR_MODEL, "rope scaling: factor is %g, not positive", s->factor);
	if ((s->scaling == ROPE_LLAMA3 || s->scaling == ROPE_YARN) && !is_positive(s->original_context))
		return err_set(err, ERR_MODEL, "rope scaling: original context is %g, not positive", s->original_context);
	if (s->scaling == ROPE_LLAMA3 && !(is_positive(s->low_freq_factor) && isfinite(s->high_freq_factor) &&
		s->high_freq_factor > s->low_freq_factor))
		return err_set(err, ERR_MODEL, "rope scaling: high_freq_factor is %g, not above low_freq_factor %g",
			s->high_freq_factor, s->low_freq_factor);
	if (s->scaling == ROPE_YARN && !(is_positive(s->beta_fast) && is_positive(s->beta_slow)))
		return err_set(err, ERR_MODEL, "rope scaling: beta_fast %g and beta_slow %g are not both positive", s->beta_fast,
			s->beta_slow);
	if (s->scaling == ROPE_YARN && !(isfinite(s->attention_factor) && isfinite(s->mscale) && isfinite(s->mscale_all_dim)))
		return err_set(err, ERR_MODEL, "rope scaling: attention_factor %g, mscale %g or mscale_all_dim %g is not finite",
			s->attention_factor, s->mscale, s->mscale_all_dim);
	if (s->divisors && (s->divisors->type != TENSOR_F32 || s->divisors->n_dims != 1 || s->divisors->shape[0] != s->dim / 2))
		return err_set(err, ERR_MODEL, "tensor %s: not %d numbers of F32", s->divisors->name, s->dim / 2);
	return 0;
}

static double llama3_scale(const struct rope_spec *s, double inv_freq)
{
	double wavelength = 2 * pi / inv_freq, smooth;

	if (wavelength > s->original_context / s->low_freq_factor)
		return inv_freq / s->factor;
	if (wavelength < s->original_context / s->high_freq_factor)
		return inv_freq;
	smooth = (s->original_context / wavelength - s->low_freq_factor) / (s->high_freq_factor - s->low_freq_factor);
	return (1 - smooth) * inv_freq / s->factor + smooth * inv_freq;
}

/* The pair (a fraction of one) that turns n_rotations times over the original context. */
static double yarn_correction(const struct rope_spec *s, double n_rotations)
{
	return s->dim * log(s->original_context / (n_rotations * 2 * pi)) / (2 * log(s->theta));
}

static double yarn_scale(const struct rope_spec *s, int i, double inv_freq)
{
	double low = yarn_correction(s, s->beta_fast), high = yarn_correction(s, s->beta_slow), ramp;

	if (!s->no_truncate) {
		low = floor(low);
		high = ceil(high);
	}
	low = fmax(low, 0);
	high = fmin(high, s->dim - 1);
	if (low == high)
		high += 0.001;
	ramp = fmin(fmax((i - low) / (high - low), 0), 1);
	return inv_freq / s->factor * ramp + inv_freq * (1 - ramp);
}

static double yarn_mscale(double factor, double mscale)
{
	return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static double yarn_attention_factor(const struct rope_spec *s)
{
	if (s->attention_factor >= 0)
		return s->attention_factor;
	if (s->mscale != 0 && s->mscale_all_dim != 0)
		return yarn_mscale(s->factor, s->mscale) / yarn_mscale(s->factor, s->mscale_all_dim);
	return yarn_mscale(s->factor, 1);
}

int rope_init(struct rope *r, const struct rope_spec *s, struct err *err)
{
	double attention_factor = s->scaling == ROPE_YARN ? yarn_attention_factor(s) : 1;
	float *inv_freq;

	if (check_spec(s, err) < 0)
		return -1;
	inv_freq = xcalloc((size_t)s->dim / 2, sizeof(*inv_freq));
	for (int i = 0; i < s->dim / 2; i++) {
		double f = pow(s->theta, -2.0 * i / s->dim);

		if (s->divisors) {
			float divisor;

			memcpy(&divisor, (const char *)s->divisors->data + (size_t)i * sizeof(divisor), sizeof(divisor));
			f /= (double)divisor;
		}
		if (s->scaling == ROPE_LINEAR)
			f /= s->factor;
		else if (s->scaling == ROPE_LLAMA3)
			f = llama3_scale(s, f);
		else if (s->scaling == ROPE_YARN)
			f = yarn_scale(s, i, f);
		inv_freq[i] = (float)f;
		if (!isfinite(inv_freq[i])) {
			free(inv_freq);
			return err_set(err, ERR_MODEL, "rope: frequency %d is not finite", i);
		}
	}
	if (!isfinite(attention_factor) || attention_factor <= 0) {
		free(inv_freq);
		return err_set(err, ERR_MODEL, "rope scaling: attention factor is %g, not positive", attention_factor);
	}
	*r = (struct rope){.inv_freq = inv_freq, .dim = s->dim, .attention_factor = (float)attention_factor};
	return 0;
}

/* output.c: writes chat.completion and text_completion objects and the batch line around them, member by member and always in
 * the same order. */
#include "runner/output.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"

enum { ID_DIGITS = 24 };

/* ID_DIGITS hex digits from the job's setup and the row's key. */
static void add_id(struct buf *out, const char *prefix, const struct output_rules *o, const char *key, size_t n_key,
                   uint64_t salt)
{
	uint64_t seed = hash64(o->setup, strlen(o->setup), salt);

	buf_addf(out, "%s%016" PRIx64 "%08" PRIx32, prefix, hash64(key, n_key, seed), (uint32_t)hash64(key, n_key, ~seed));
}

static void begin_name(struct buf *out, const struct output_rules *o, const char *key, size_t n_key, const char *custom_id,
                       size_t n_custom_id)
{
	buf_adds(out, "{\"id\":\"");
	add_id(out, "batch_req_", o, key, n_key, 1);
	buf_adds(out, "\",\"custom_id\":");
	json_write_string(out, custom_id ? custom_id : key, custom_id ? n_custom_id : n_key);
}

static void begin_line(struct buf *out, const struct output_rules *o, const char *key, size_t n_key, const char *custom_id,
                       size_t n_custom_id, int status)
{
	begin_name(out, o, key, n_key, custom_id, n_custom_id);
	buf_addf(out, ",\"response\":{\"status_code\":%d,\"request_id\":\"", status);
	add_id(out, "", o, key, n_key, 2);
	buf_adds(out, "\",\"body\":");
}

static void end_line(struct buf *out)
{
	buf_adds(out, "},\"error\":null}");
}

/* The shortest decimal that reads back as the same float; JSON has no infinity, the API writes -9999 for it. */
static void add_logprob(struct buf *out, float x)
{
	char text[32];

	if (!(x > -9999.0f))
		x = -9999.0f;
	for (int digits = 6; digits <= 9; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, (double)x);
		if (strtof(text, NULL) == x)
			break;
	}
	/* "-0" is a number of JSON, but looks odd. */
	buf_adds(out, x == 0 ? "0.0" : text);
	if (x != 0 && !strpbrk(text, ".e"))
		buf_adds(out, ".0");
}

static size_t count_replacements(const char *s, size_t n)
{
	size_t count = 0;

	for (size_t i = 0; i + 3 <= n; i++)
		count += memcmp(s + i, "\xEF\xBF\xBD", 3) == 0;
	return count;
}

/* json_write_string puts U+FFFD for each bad byte; the token itself may hold one, too. */
static int is_utf8(const char *s, size_t n)
{
	struct buf quoted = {0};
	int clean;

	json_write_string(&quoted, s, n);
	clean = count_replacements(quoted.data, quoted.len) == count_replacements(s, n);
	buf_release(&quoted);
	return clean;
}

/* A token that is part of a character has no text: the completions API writes bytes:\xe2\x96 for it, as a key must tell tokens
 * apart. */
static void add_token_key(struct buf *out, const struct output_rules *o, int32_t id)
{
	struct buf bytes = {0};

	tokenizer_token_bytes(o->tokenizer, id, &bytes);
	if (is_utf8(buf_str(&bytes), bytes.len)) {
		json_write_string(out, buf_str(&bytes), bytes.len);
	} else {
		buf_adds(out, "\"bytes:");
		for (size_t i = 0; i < bytes.len; i++)
			buf_addf(out, "\\\\x%02x", (unsigned char)bytes.data[i]);
		buf_addc(out, '"');
	}
	buf_release(&bytes);
}

/* {"token":..., "logprob":..., "bytes":[...]  without the closing brace. */
static void add_chat_token(struct buf *out, const struct output_rules *o, const struct token_logprob *t)
{
	struct buf bytes = {0};

	tokenizer_token_bytes(o->tokenizer, t->id, &bytes);
	buf_adds(out, "{\"token\":");
	json_write_string(out, buf_str(&bytes), bytes.len);
	buf_adds(out, ",\"logprob\":");
	add_logprob(out, t->logprob);
	buf_adds(out, ",\"bytes\":[");
	for (size_t i = 0; i < bytes.len; i++)
		buf_addf(out, "%s%u", i ? "," : "", (unsigned char)bytes.data[i]);
	buf_addc(out, ']');
	buf_release(&bytes);
}

static void add_chat_logprobs(struct buf *out, const struct output_rules *o, const struct sample_result *s, size_t n_tokens,
                              int width)
{
	buf_adds(out, "{\"content\":[");
	for (size_t i = 0; i < n_tokens; i++) {
		const struct token_logprob *t = s->logprobs + i * (size_t)width;

		if (i)
			buf_addc(out, ',');
		add_chat_token(out, o, t);
		buf_adds(out, ",\"top_logprobs\":[");
		for (int k = 1; k < width && t[k].id >= 0; k++) {
			if (k > 1)
				buf_addc(out, ',');
			add_chat_token(out, o, &t[k]);
			buf_addc(out, '}');
		}
		buf_adds(out, "]}");
	}
	buf_adds(out, "],\"refusal\":null}");
}

/* The completions API's four parallel arrays. Its top_logprobs always hold the chosen token, so up to one more than asked for.
 */
static void add_text_logprobs(struct buf *out, const struct output_rules *o, const struct sample_result *s,
                              const size_t *offsets, size_t n_tokens, int width)
{
	buf_adds(out, "{\"tokens\":[");
	for (size_t i = 0; i < n_tokens; i++) {
		if (i)
			buf_addc(out, ',');
		add_token_key(out, o, s->logprobs[i * (size_t)width].id);
	}
	buf_adds(out, "],\"token_logprobs\":[");
	for (size_t i = 0; i < n_tokens; i++) {
		if (i)
			buf_addc(out, ',');
		add_logprob(out, s->logprobs[i * (size_t)width].logprob);
	}
	buf_adds(out, "],\"top_logprobs\":");
	if (width == 1) {
		buf_adds(out, "null");
	} else {
		buf_addc(out, '[');
		for (size_t i = 0; i < n_tokens; i++) {
			const struct token_logprob *t = s->logprobs + i * (size_t)width;
			int chosen_shown = 0;

			buf_adds(out, i ? ",{" : "{");
			for (int k = 1; k < width && t[k].id >= 0; k++) {
				if (k > 1)
					buf_addc(out, ',');
				add_token_key(out, o, t[k].id);
				buf_addc(out, ':');
				add_logprob(out, t[k].logprob);
				chosen_shown |= t[k].id == t[0].id;
			}
			if (!chosen_shown) {
				if (width > 1 && t[1].id >= 0)
					buf_addc(out, ',');
				add_token_key(out, o, t[0].id);
				buf_addc(out, ':');
				add_logprob(out, t[0].logprob);
			}
			buf_addc(out, '}');
		}
		buf_addc(out, ']');
	}
	buf_adds(out, ",\"text_offset\":[");
	for (size_t i = 0; i < n_tokens; i++)
		buf_addf(out, "%s%zu", i ? "," : "", offsets[i]);
	buf_adds(out, "]}");
}

static size_t count_characters(const char *s, size_t n)
{
	size_t count = 0;

	for (size_t i = 0; i < n; i++)
		count += ((unsigned char)s[i] & 0xC0) != 0x80;
	return count;
}

/* Which of the sample's tokens are shown: not the token that ended it, unless the text shows it, nor what a stop string cut
 * off. offsets: [n_tokens], where each begins in the text, in characters. */
static size_t shown_tokens(const struct output_rules *o, const struct row_request *r, const struct sample_result *s,
                           size_t *offsets)
{
	size_t n = s->n_tokens, i, characters = 0;
	int ended_by_token = n && s->reason == FINISH_STOP && s->stop_id >= 0;
	struct detokenizer *d = detokenizer_new(o->tokenizer, r->sampling.skip_special);
	struct buf text = {0};

	if (ended_by_token && !r->sampling.include_stop)
		n--;
	for (i = 0; i < n; i++) {
		size_t before = text.len;

		if (s->by_stop_string && !r->sampling.include_stop && before >= s->n_text)
			break;
		offsets[i] = characters;
		detokenizer_add(d, s->tokens[i], &text);
		if (ended_by_token && i + 1 == s->n_tokens && text.len == before)
			break;
		characters += count_characters(buf_str(&text) + before, text.len - before);
	}
	buf_release(&text);
	detokenizer_free(d);
	return i;
}

static void add_logprobs(struct buf *out, const struct output_rules *o, const struct row_request *r,
                         const struct sample_result *s)
{
	size_t *offsets, n;

	if (!r->logprobs || (!s->logprobs && s->n_tokens)) {
		buf_adds(out, "null");
		return;
	}
	offsets = xcalloc(s->n_tokens + 1, sizeof(*offsets));
	n = s->logprobs ? shown_tokens(o, r, s, offsets) : 0;
	if (r->kind == ROW_CHAT)
		add_chat_logprobs(out, o, s, n, 1 + r->sampling.n_logprobs);
	else
		add_text_logprobs(out, o, s, offsets, n, 1 + r->sampling.n_logprobs);
	free(offsets);
}

static void add_choice(struct buf *out, const struct output_rules *o, const struct row_request *r, const struct buf *echo,
                       const struct sample_result *s, int index)
{
	buf_addf(out, "{\"index\":%d,", index);
	if (r->kind == ROW_CHAT) {
		buf_adds(out, "\"message\":{\"role\":\"assistant\",\"content\":");
		json_write_string(out, s->text ? s->text : "", s->n_text);
		buf_adds(out, ",\"refusal\":null}");
	} else {
		struct buf text = {0};

		if (r->echo && echo)
			buf_add(&text, buf_str(echo), echo->len);
		buf_add(&text, s->text ? s->text : "", s->n_text);
		buf_adds(out, "\"text\":");
		json_write_string(out, buf_str(&text), text.len);
		buf_release(&text);
	}
	buf_adds(out, ",\"logprobs\":");
	add_logprobs(out, o, r, s);
	buf_addf(out, ",\"finish_reason\":\"%s\"}", s->reason == FINISH_LENGTH ? "length" : "stop");
}

void output_success(struct buf *out, const struct output_rules *o, const char *key, size_t n_key, const struct row_request *r,
                    const struct buf *echo, const struct sample_result *samples, size_t n_prompt_tokens)
{
	size_t n_output = 0, n_reasoning = 0;

	begin_line(out, o, key, n_key, r->custom_id, r->n_custom_id, 200);
	buf_adds(out, "{\"id\":\"");
	add_id(out, r->kind == ROW_CHAT ? "chatcmpl-" : "cmpl-", o, key, n_key, 3);
	buf_addf(out, "\",\"object\":\"%s\",\"created\":0,\"model\":", r->kind == ROW_CHAT ? "chat.completion" : "text_completion");
	json_write_string(out, r->model ? r->model : o->model, r->model ? r->n_model : strlen(o->model));
	buf_addf(out, ",\"system_fingerprint\":\"fp_%.10s\",\"choices\":[", o->setup);
	for (int i = 0; i < r->n; i++) {
		if (i)
			buf_addc(out, ',');
		add_choice(out, o, r, echo, &samples[i], i);
		n_output += samples[i].n_tokens;
		n_reasoning += samples[i].n_reasoning;
	}
	buf_addf(out, "],\"usage\":{\"prompt_tokens\":%zu,\"completion_tokens\":%zu,\"total_tokens\":%zu", n_prompt_tokens,
	         n_output, n_prompt_tokens + n_output);
	if (o->reasoning.is_known)
		buf_addf(out, ",\"completion_tokens_details\":{\"reasoning_tokens\":%zu}", n_reasoning);
	buf_adds(out, "}}");
	end_line(out);
}

static void add_or_null(struct buf *out, const char *s)
{
	if (s[0])
		json_write_string(out, s, strlen(s));
	else
		buf_adds(out, "null");
}

void output_fault(struct buf *out, const struct output_rules *o, const char *key, size_t n_key, const char *custom_id,
                  size_t n_custom_id, const struct row_fault *f)
{
	begin_line(out, o, key, n_key, custom_id, n_custom_id, f->status);
	buf_adds(out, "{\"error\":{\"message\":");
	json_write_string(out, f->message, strlen(f->message));
	buf_addf(out, ",\"type\":\"%s\",\"param\":", f->type);
	add_or_null(out, f->param);
	buf_adds(out, ",\"code\":");
	add_or_null(out, f->code);
	buf_adds(out, "}}");
	end_line(out);
}

/* ---- the same answer for another row ---- */

struct scan {
	const char *at, *end;
};

static int skip(struct scan *s, const char *word)
{
	size_t n = strlen(word);

	if ((size_t)(s->end - s->at) < n || memcmp(s->at, word, n) != 0)
		return 0;
	s->at += n;
	return 1;
}

/* What add_id has written after its prefix. */
static int skip_id(struct scan *s)
{
	if (s->end - s->at < ID_DIGITS)
		return 0;
	s->at += ID_DIGITS;
	return 1;
}

static int skip_string(struct scan *s)
{
	if (!skip(s, "\""))
		return 0;
	for (; s->at < s->end && *s->at != '"'; s->at++)
		if (*s->at == '\\' && s->at + 1 < s->end)
			s->at++;
	return skip(s, "\"");
}

static int skip_number(struct scan *s)
{
	const char *start = s->at;

	while (s->at < s->end && *s->at >= '0' && *s->at <= '9')
		s->at++;
	return s->at > start;
}

int output_renamed(struct buf *out, const char *setup, const char *line, size_t n_line, const char *key, size_t n_key, struct err *err)
{
	const struct output_rules o = {.setup = setup};
	struct scan s = {line, line + n_line};
	const char *status;
	int status_digits, is_chat, is_unanswered;

	if (!skip(&s, "{\"id\":\"batch_req_") || !skip_id(&s) || !skip(&s, "\",\"custom_id\":") || !skip_string(&s) ||
	    (!(is_unanswered = skip(&s, ",\"response\":null,")) && !skip(&s, ",\"response\":{\"status_code\":")))
		return err_set(err, ERR_STORAGE, "not an output line: %.*s", (int)(n_line < 60 ? n_line : 60), line);
	if (is_unanswered) {
		begin_name(out, &o, key, n_key, NULL, 0);
		buf_adds(out, ",\"response\":null,");
		buf_add(out, s.at, (size_t)(s.end - s.at));
		return 0;
	}
	status = s.at;
	if (!skip_number(&s))
		return err_set(err, ERR_STORAGE, "not an output line: no status code");
	status_digits = (int)(s.at - status);
	if (status_digits > 3 || !skip(&s, ",\"request_id\":\"") || !skip_id(&s) || !skip(&s, "\",\"body\":{"))
		return err_set(err, ERR_STORAGE, "not an output line: no request_id");
	begin_line(out, &o, key, n_key, NULL, 0, atoi(status));
	is_chat = skip(&s, "\"id\":\"chatcmpl-");
	if (is_chat || skip(&s, "\"id\":\"cmpl-")) {
		if (!skip_id(&s))
			return err_set(err, ERR_STORAGE, "not an output line: the id of its body is cut");
		buf_adds(out, "{\"id\":\"");
		add_id(out, is_chat ? "chatcmpl-" : "cmpl-", &o, key, n_key, 3);
	} else {
		buf_addc(out, '{');
	}
	buf_add(out, s.at, (size_t)(s.end - s.at));
	return 0;
}

void output_unanswered(struct buf *out, const char *setup, const char *key, size_t n_key, const char *code, const char *message)
{
	const struct output_rules o = {.setup = setup};

	begin_name(out, &o, key, n_key, NULL, 0);
	buf_adds(out, ",\"response\":null,\"error\":{\"code\":");
	json_write_string(out, code, strlen(code));
	buf_adds(out, ",\"message\":");
	json_write_string(out, message, strlen(message));
	buf_adds(out, "}}");
}

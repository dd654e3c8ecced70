/* s3_config.c: credentials, region and endpoint as the AWS tools find them ("Configuration and credential file settings", AWS
 * CLI), and from these the address of an object ("Virtual hosting of buckets", Amazon S3 User Guide). */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/s3_private.h"

enum { PROFILES_MAX_BYTES = 1 << 20 };

static const char *environment(const char *name)
{
	const char *v = getenv(name);

	return v && *v ? v : NULL;
}

static char *trimmed(const char *p, size_t n)
{
	while (n > 0 && isspace((unsigned char)*p)) {
		p++;
		n--;
	}
	while (n > 0 && isspace((unsigned char)p[n - 1]))
		n--;
	return xmemdup(p, n);
}

char *s3_profile_find(const char *text, const char *section, const char *key)
{
	char *value = NULL;
	int inside = 0;

	for (const char *line = text; *line && !value;) {
		size_t n = strcspn(line, "\r\n");
		const char *eq = memchr(line, '=', n);

		if (*line == '[') {
			const char *end = memchr(line, ']', n);
			char *name = trimmed(line + 1, end ? (size_t)(end - line - 1) : n - 1);

			inside = strcmp(name, section) == 0;
			free(name);
		} else if (inside && eq && !isspace((unsigned char)*line) && *line != '#' && *line != ';') {
			char *name = trimmed(line, (size_t)(eq - line));

			if (strcmp(name, key) == 0)
				value = trimmed(eq + 1, n - (size_t)(eq + 1 - line));
			free(name);
		}
		line += n;
		line += strspn(line, "\r\n");
	}
	if (value && *value == '\0') {
		free(value);
		value = NULL;
	}
	return value;
}

/* The file that the variable names, or ~/.aws/NAME; one that is not there is empty. */
static int profiles_read(const char *variable, const char *name, struct buf *out, struct err *err)
{
	const char *path = environment(variable), *home = environment("HOME");
	struct buf p = {0};
	int rc = 0;

	if (path)
		buf_adds(&p, path);
	else if (home)
		buf_addf(&p, "%s/.aws/%s", home, name);
	if (p.len > 0 && file_exists(p.data))
		rc = file_read(p.data, PROFILES_MAX_BYTES, out, ERR_USAGE, err);
	buf_release(&p);
	return rc;
}

static char *first_of(const char *a, const char *b)
{
	return a ? xstrdup(a) : b ? xstrdup(b) : NULL;
}

static int region_is_plausible(const char *s)
{
	for (const char *p = s; *p; p++)
		if (!isalnum((unsigned char)*p) && *p != '-' && *p != '_')
			return 0;
	return *s != '\0';
}

static int endpoint_check(char *e, struct err *err)
{
	size_t n = strlen(e);
	const char *host = strncmp(e, "http://", 7) == 0 ? e + 7 : strncmp(e, "https://", 8) == 0 ? e + 8 : NULL;

	if (!host || *host == '\0' || *host == '/' || strpbrk(host, "?#@ \t\\"))
		return err_set(err, ERR_USAGE, "AWS_ENDPOINT_URL is \"%s\": expected http://HOST[:PORT] or https://HOST[:PORT]", e);
	while (n > 0 && e[n - 1] == '/')
		e[--n] = '\0';
	return 0;
}

/* A secret that was made with a trailing newline is common, and hard to find from "SignatureDoesNotMatch". */
static int credential_check(const char *name, const char *s, struct err *err)
{
	for (; s && *s; s++)
		if (!isgraph((unsigned char)*s))
			return err_set(err, ERR_USAGE, "%s has white space, control or other characters in it that it cannot have", name);
	return 0;
}

static int credentials_read(struct s3_config *c, const char *credentials, const char *config, const char *profile,
                            const char *config_section, struct err *err)
{
	const char *id = environment("AWS_ACCESS_KEY_ID"), *secret = environment("AWS_SECRET_ACCESS_KEY");
	const char *text = credentials, *section = profile;

	if (id && secret) {
		c->access_key = xstrdup(id);
		c->secret_key = xstrdup(secret);
		c->session_token = first_of(environment("AWS_SESSION_TOKEN"), NULL);
		return 0;
	}
	c->access_key = s3_profile_find(text, section, "aws_access_key_id");
	if (!c->access_key) {
		text = config;
		section = config_section;
		c->access_key = s3_profile_find(text, section, "aws_access_key_id");
	}
	c->secret_key = s3_profile_find(text, section, "aws_secret_access_key");
	c->session_token = s3_profile_find(text, section, "aws_session_token");
	if (!c->access_key || !c->secret_key)
		return err_set(err, ERR_USAGE,
		               "no credentials for s3://: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or put them into "
		               "~/.aws/credentials as [%s]",
		               profile);
	return 0;
}

int s3_config_read(struct s3_config *c, struct err *err)
{
	const char *profile = environment("AWS_PROFILE");
	struct buf credentials = {0}, config = {0}, section = {0};
	int rc = -1;

	*c = (struct s3_config){0};
	if (!profile)
		profile = "default";
	/* The config file calls the others "profile NAME". */
	buf_addf(&section, "%s%s", strcmp(profile, "default") == 0 ? "" : "profile ", profile);
	if (profiles_read("AWS_SHARED_CREDENTIALS_FILE", "credentials", &credentials, err) < 0 ||
	    profiles_read("AWS_CONFIG_FILE", "config", &config, err) < 0)
		goto out;
	if (credentials_read(c, buf_str(&credentials), buf_str(&config), profile, section.data, err) < 0 ||
	    credential_check("AWS_ACCESS_KEY_ID", c->access_key, err) < 0 ||
	    credential_check("AWS_SECRET_ACCESS_KEY", c->secret_key, err) < 0 ||
	    credential_check("AWS_SESSION_TOKEN", c->session_token, err) < 0)
		goto out;
	c->region = first_of(environment("AWS_REGION"), environment("AWS_DEFAULT_REGION"));
	if (!c->region)
		c->region = s3_profile_find(buf_str(&config), section.data, "region");
	if (!c->region)
		c->region = xstrdup("us-east-1");
	if (!region_is_plausible(c->region)) {
		err_set(err, ERR_USAGE, "AWS_REGION is \"%s\": not the name of a region", c->region);
		goto out;
	}
	c->endpoint = first_of(environment("AWS_ENDPOINT_URL_S3"), environment("AWS_ENDPOINT_URL"));
	if (!c->endpoint)
		c->endpoint = s3_profile_find(buf_str(&config), section.data, "endpoint_url");
	if (c->endpoint && endpoint_check(c->endpoint, err) < 0)
		goto out;
	rc = 0;
out:
	buf_release(&credentials);
	buf_release(&config);
	buf_release(&section);
	if (rc < 0)
		s3_config_release(c);
	return rc;
}

void s3_config_release(struct s3_config *c)
{
	free(c->access_key);
	free(c->secret_key);
	free(c->session_token);
	free(c->region);
	free(c->endpoint);
	*c = (struct s3_config){0};
}

void s3_address_make(struct s3_address *a, const struct s3_config *c, const char *bucket, const char *key)
{
	const char *scheme = "https://";
	int in_host = 0;

	if (c->endpoint) {
		const char *host = strstr(c->endpoint, "://") + 3;
		size_t n = strcspn(host, "/");

		scheme = host - c->endpoint == 7 ? "http://" : "https://";
		buf_addf(&a->host, "%.*s", (int)n, host);
		buf_adds(&a->path, host + n);
	} else {
		in_host = strchr(bucket, '.') == NULL;
		buf_addf(&a->host, "%s%ss3.%s.amazonaws.com%s", in_host ? bucket : "", in_host ? "." : "", c->region,
		         strncmp(c->region, "cn-", 3) == 0 ? ".cn" : "");
	}
	buf_addc(&a->path, '/');
	if (!in_host) {
		sigv4_encode(&a->path, bucket, 0);
		if (key)
			buf_addc(&a->path, '/');
	}
	if (key)
		sigv4_encode(&a->path, key, 1);
	buf_addf(&a->url, "%s%s%s", scheme, a->host.data, a->path.data);
	/* Signed is what libcurl sends: without the scheme's own port. */
	if (c->endpoint) {
		const char *port = strcmp(scheme, "http://") == 0 ? ":80" : ":443";
		size_t n = strlen(port);

		if (a->host.len > n && strcmp(a->host.data + a->host.len - n, port) == 0)
			buf_truncate(&a->host, a->host.len - n);
	}
}

void s3_address_release(struct s3_address *a)
{
	buf_release(&a->host);
	buf_release(&a->path);
	buf_release(&a->url);
}

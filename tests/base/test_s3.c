/* What of the S3 client needs no server: signatures, addresses, configuration, XML, and what is made of replies. */
#include "tests/check.h"

#include <unistd.h>

#include "base/file.h"
#include "base/s3_private.h"
#include "base/xml.h"

/* Amazon S3 API Reference, "Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk", and
 * "Authenticating Requests: Using Query Parameters": 24 May 2013, 00:00:00. */
static const int64_t doc_time = 1369353600;
static const struct sigv4_key doc_key = {"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1", "s3"};
#define DOC_HOST "examplebucket.s3.amazonaws.com"
#define DOC_CREDENTIAL "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders="

static void check_authorization(const struct sigv4_request *r, const char *expected)
{
	struct buf b = {0};

	sigv4_authorize(&b, &doc_key, r);
	CHECK_STR(b.data, expected);
	buf_release(&b);
}

TEST(sign_documented)
{
	struct buf path = {0};
	struct http_field get[] = {{"x-amz-date", "20130524T000000Z"}, {"host", DOC_HOST}, {"range", "bytes=0-9"},
		{"x-amz-content-sha256", SIGV4_EMPTY_SHA256}};
	struct http_field put[] = {{"host", DOC_HOST}, {"date", "Fri, 24 May 2013 00:00:00 GMT"}, {"x-amz-date", "20130524T000000Z"},
		{"x-amz-storage-class", "REDUCED_REDUNDANCY"},
		{"x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"}};
	struct http_field plain[] = {{"host", DOC_HOST}, {"x-amz-content-sha256", SIGV4_EMPTY_SHA256}, {"x-amz-date", "20130524T000000Z"}};
	struct http_field lifecycle[] = {{"lifecycle", ""}}, list[] = {{"prefix", "J"}, {"max-keys", "2"}};
	struct sigv4_request r = {"GET", "/test.txt", NULL, 0, get, 4, SIGV4_EMPTY_SHA256, doc_time};
	char sha[SHA256_HEX_BYTES];

	check_authorization(&r, DOC_CREDENTIAL "host;range;x-amz-content-sha256;x-amz-date, Signature="
					       "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
	sha256_hex("Welcome to Amazon S3.", 21, sha);
	CHECK_STR(sha, put[4].value);
	buf_addc(&path, '/');
	sigv4_encode(&path, "test$file.text", 1);
	r = (struct sigv4_request){"PUT", path.data, NULL, 0, put, 5, sha, doc_time};
	check_authorization(&r, DOC_CREDENTIAL "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class, Signature="
					       "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
	r = (struct sigv4_request){"GET", "/", lifecycle, 1, plain, 3, SIGV4_EMPTY_SHA256, doc_time};
	check_authorization(&r, DOC_CREDENTIAL "host;x-amz-content-sha256;x-amz-date, Signature="
					       "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
	r = (struct sigv4_request){"GET", "/", list, 2, plain, 3, SIGV4_EMPTY_SHA256, doc_time};
	check_authorization(&r, DOC_CREDENTIAL "host;x-amz-content-sha256;x-amz-date, Signature="
					       "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
	buf_release(&path);
}

TEST(presign_documented)
{
	struct http_field host[] = {{"host", DOC_HOST}};
	struct sigv4_request r = {"GET", "/test.txt", NULL, 0, host, 1, SIGV4_UNSIGNED, doc_time};
	struct buf b = {0};

	sigv4_presign(&b, &doc_key, NULL, &r, 86400);
	CHECK_STR(b.data, "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
			  "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
			  "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
	buf_release(&b);
}

TEST(encode)
{
	static const struct {
		const char *plain;
		int keep_slash;
		const char *encoded;
	} cases[] = {
		{"", 0, ""},
		{"AZaz09-._~", 0, "AZaz09-._~"},
		{"a/b c", 1, "a/b%20c"},
		{"a/b c", 0, "a%2Fb%20c"},
		{"+*!'()&=;:@$,?#[]%", 1, "%2B%2A%21%27%28%29%26%3D%3B%3A%40%24%2C%3F%23%5B%5D%25"},
		{"\x01\x7f\xc3\xa4\xff", 0, "%01%7F%C3%A4%FF"},
		{"//../.", 1, "//../."},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct buf b = {0};

		sigv4_encode(&b, cases[i].plain, cases[i].keep_slash);
		CHECK_STR(buf_str(&b), cases[i].encoded);
		buf_release(&b);
	}
}

TEST(query)
{
	struct http_field q[] = {{"b", "2"}, {"a", "x y"}, {"a-", "1"}, {"a", ""}, {"B", "/"}};
	struct buf b = {0};

	sigv4_query(&b, q, 5);
	CHECK_STR(b.data, "B=%2F&a=&a=x%20y&a-=1&b=2");
	buf_release(&b);
}

TEST(address)
{
	static const struct {
		const char *endpoint, *region, *bucket, *key, *host, *url;
	} cases[] = {
		{NULL, "us-east-1", "jobs", "a/b c", "jobs.s3.us-east-1.amazonaws.com", "https://jobs.s3.us-east-1.amazonaws.com/a/b%20c"},
		{NULL, "eu-west-1", "jobs", NULL, "jobs.s3.eu-west-1.amazonaws.com", "https://jobs.s3.eu-west-1.amazonaws.com/"},
		{NULL, "eu-west-1", "my.jobs", "k", "s3.eu-west-1.amazonaws.com", "https://s3.eu-west-1.amazonaws.com/my.jobs/k"},
		{NULL, "cn-north-1", "jobs", "k", "jobs.s3.cn-north-1.amazonaws.com.cn", "https://jobs.s3.cn-north-1.amazonaws.com.cn/k"},
		{"http://localhost:9000", "r", "jobs", "k", "localhost:9000", "http://localhost:9000/jobs/k"},
		{"http://localhost:9000", "r", "jobs", NULL, "localhost:9000", "http://localhost:9000/jobs"},
		{"http://[::1]:80", "r", "jobs", "k", "[::1]", "http://[::1]:80/jobs/k"},
		{"https://s3.local:443", "r", "jobs", "k", "s3.local", "https://s3.local:443/jobs/k"},
		{"https://s3.local:80", "r", "jobs", "k", "s3.local:80", "https://s3.local:80/jobs/k"},
		{"https://gate/s3/v2", "r", "jobs", "k", "gate", "https://gate/s3/v2/jobs/k"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct s3_config c = {.endpoint = (char *)cases[i].endpoint, .region = (char *)cases[i].region};
		struct s3_address a = {0};
		size_t n_path;

		s3_address_make(&a, &c, cases[i].bucket, cases[i].key);
		n_path = a.path.len;
		CHECK_STR(a.host.data, cases[i].host);
		CHECK_STR(a.url.data, cases[i].url);
		CHECK(a.url.len > n_path && strcmp(a.url.data + a.url.len - n_path, a.path.data) == 0);
		s3_address_release(&a);
	}
}

TEST(url)
{
	static const char *const bad[] = {"", "s3", "s3:/a/b", "http://abc/d", "s3://", "s3:///k", "s3://ab", "s3://-abc", "s3://a b c", "s3://abc%2f/k",
		"s3://user@abc/k", "s3://abc:9/k", "s3://abc?x/k"};
	struct err err = {0};
	char *bucket, *key;

	CHECK_INT(s3_url_parse("s3://my-bucket.x/a//b c/", &bucket, &key, &err), 0);
	CHECK_STR(bucket, "my-bucket.x");
	CHECK_STR(key, "a//b c/");
	free(bucket);
	free(key);
	CHECK_INT(s3_url_parse("s3://abc", &bucket, &key, &err), 0);
	CHECK_STR(bucket, "abc");
	CHECK_STR(key, "");
	free(bucket);
	free(key);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		err_clear(&err);
		CHECK_INT(s3_url_parse(bad[i], &bucket, &key, &err), -1);
		CHECK_INT(err.code, ERR_USAGE);
	}
}

/* ---- configuration ---- */

static void environment_clear(void)
{
	static const char *const names[] = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
		"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unsetenv(names[i]);
	setenv("HOME", ".", 1);
}

TEST(config)
{
	static const char credentials[] = "# a comment\n[default]\r\naws_access_key_id = first\naws_secret_access_key=one=1\n\n[ other ]\n"
					  "aws_access_key_id=second\naws_secret_access_key =  two  \naws_session_token = t\n[broken]\naws_access_key_id =\n";
	static const char config[] = "[default]\nregion = eu-west-1\ns3 =\n  region = nested\n[profile other]\nregion = ap-south-1\n"
				     "endpoint_url = https://gate:9000//\n";
	struct s3_config c;
	struct err err = {0};

	environment_clear();
	CHECK_INT(s3_config_read(&c, &err), -1);
	CHECK_INT(err.code, ERR_USAGE);
	err_clear(&err);

	CHECK_INT(file_make_dirs(".aws", &err), 0);
	CHECK_INT(file_write_atomic(".aws/credentials", credentials, strlen(credentials), &err), 0);
	CHECK_INT(file_write_atomic(".aws/config", config, strlen(config), &err), 0);
	CHECK_INT(s3_config_read(&c, &err), 0);
	CHECK_STR(c.access_key, "first");
	CHECK_STR(c.secret_key, "one=1");
	CHECK(c.session_token == NULL && c.endpoint == NULL);
	CHECK_STR(c.region, "eu-west-1");
	s3_config_release(&c);

	setenv("AWS_PROFILE", "other", 1);
	CHECK_INT(s3_config_read(&c, &err), 0);
	CHECK_STR(c.access_key, "second");
	CHECK_STR(c.secret_key, "two");
	CHECK_STR(c.session_token, "t");
	CHECK_STR(c.region, "ap-south-1");
	CHECK_STR(c.endpoint, "https://gate:9000");
	s3_config_release(&c);

	setenv("AWS_ACCESS_KEY_ID", "id", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
	setenv("AWS_DEFAULT_REGION", "r2", 1);
	setenv("AWS_ENDPOINT_URL", "http://general", 1);
	CHECK_INT(s3_config_read(&c, &err), 0);
	CHECK_STR(c.access_key, "id");
	CHECK_STR(c.secret_key, "secret");
	CHECK(c.session_token == NULL); /* the profile's belongs to another key */
	CHECK_STR(c.region, "r2");
	CHECK_STR(c.endpoint, "http://general");
	s3_config_release(&c);

	setenv("AWS_SESSION_TOKEN", "token", 1);
	setenv("AWS_REGION", "r1", 1);
	setenv("AWS_ENDPOINT_URL_S3", "http://special:1/", 1);
	CHECK_INT(s3_config_read(&c, &err), 0);
	CHECK_STR(c.session_token, "token");
	CHECK_STR(c.region, "r1");
	CHECK_STR(c.endpoint, "http://special:1");
	s3_config_release(&c);

	environment_clear();
	setenv("AWS_PROFILE", "broken", 1);
	CHECK_INT(s3_config_read(&c, &err), -1);
	CHECK(strstr(err.msg, "[broken]") != NULL);
	environment_clear();
	unlink(".aws/credentials");
	unlink(".aws/config");
}

/* ---- XML ---- */

static int on_leaf(void *arg, const char *path, const char *text, size_t n, struct err *err)
{
	CHECK_INT(strlen(text), n);
	buf_addf(arg, "%s=%s;", path, text);
	return 0;
}

static void check_xml(const char *xml, const char *expected)
{
	struct buf b = {0};
	struct err err = {0};
	char *exact = malloc(strlen(xml) + 1); /* so that a sanitizer sees a read too far */
	size_t n = strlen(xml);
	int rc;

	memcpy(exact, xml, n);
	exact = realloc(exact, n ? n : 1);
	rc = xml_each_leaf(exact, n, on_leaf, &b, &err);
	CHECK_STR(rc == 0 ? buf_str(&b) : "(refused)", expected);
	CHECK((rc == 0) == (err.code == ERR_NONE));
	if (check_failed_now && rc < 0)
		printf("%s: %s\n", xml, err.msg);
	buf_release(&b);
	free(exact);
}

TEST(xml)
{
	check_xml("<a>1</a>", "a=1;");
	check_xml("<a/>", "a=;");
	check_xml("\xEF\xBB\xBF\r\n <?xml version=\"1.0\" encoding='UTF-8'?>\n<a xmlns=\"http://x/?a>b\" b = '\"'><b>x</b>\n<b/><c:d >y</c:d ></a>\n<!-- -> -->",
		"a/b=x;a/b=;a/c:d=y;");
	check_xml("<a> &lt;&amp;&gt;&quot;&apos;&#65;&#x20ac;&#x1F600;&#13; </a>", "a= <&>\"'A\xE2\x82\xAC\xF0\x9F\x98\x80\r ;");
	check_xml("<a>x<![CDATA[<b>&amp;]]]>y<!-- c -->z</a>", "a=x<b>&amp;]yz;");
	check_xml("<a><b><c/></b><d>1</d></a>", "a/b/c=;a/d=1;");
	check_xml("", "(refused)");
	check_xml("  ", "(refused)");
	check_xml("text", "(refused)");
	check_xml("<a>", "(refused)");
	check_xml("<a", "(refused)");
	check_xml("</a>", "(refused)");
	check_xml("<a></b>", "(refused)");
	check_xml("<a><b></a></b>", "(refused)");
	check_xml("<a/><b/>", "(refused)");
	check_xml("<a/>x", "(refused)");
	check_xml("<a>x<b/></a>", "(refused)");
	check_xml("<a><b/>x</a>", "(refused)");
	check_xml("<a>&b;</a>", "(refused)");
	check_xml("<a>&#0;</a>", "(refused)");
	check_xml("<a>&#;</a>", "(refused)");
	check_xml("<a>&#x110000;</a>", "(refused)");
	check_xml("<a>&#xD800;</a>", "(refused)");
	check_xml("<a>&#99999999999;</a>", "(refused)");
	check_xml("<a>&#6", "(refused)");
	check_xml("<a>&#x", "(refused)");
	check_xml("<a b></a>", "(refused)");
	check_xml("<a b=c></a>", "(refused)");
	check_xml("<a b='c></a>", "(refused)");
	check_xml("<a b='c'd='e'/>", "(refused)");
	check_xml("<1/>", "(refused)");
	check_xml("<a><!-- </a>", "(refused)");
	check_xml("<a><![CDATA[x</a>", "(refused)");
	check_xml("<?xml version='1.0'", "(refused)");
	check_xml("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "(refused)");
	check_xml("<a><?php x?></a>", "(refused)");
	check_xml("<a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a/></a></a></a></a></a></a></a></a></a></a></a></a></a></a></a></a>", "(refused)");
}

TEST(error_reply)
{
	static const char text[] = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code><Message>The resource you requested does "
				   "not exist</Message><Resource>/mybucket/myfoto.jpg</Resource><RequestId>4442587FB7D0A2F9</RequestId></Error>";
	static const char *const none[] = {"", "<html><body>502</body></html>", "<Error><Code>Cut</Code>", "<Error/>", "Code"};
	struct s3_error_text e;

	CHECK_INT(s3_error_parse(text, strlen(text), &e), 1);
	CHECK_STR(e.code, "NoSuchKey");
	CHECK_STR(e.message, "The resource you requested does not exist");
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		CHECK_INT(s3_error_parse(none[i], strlen(none[i]), &e), 0);
		CHECK_STR(e.code, "");
	}
}

#define PAGE(inner) "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">" inner "</ListBucketResult>"

TEST(list_reply)
{
	static const char *const bad[] = {"<ListBucketResult>", "<Other/>", PAGE("<IsTruncated>true</IsTruncated>"),
		PAGE("<IsTruncated>true</IsTruncated><NextContinuationToken/>"),
		PAGE("<EncodingType>url</EncodingType><Contents><Key>a%2</Key></Contents>"),
		PAGE("<EncodingType>url</EncodingType><Contents><Key>a%00</Key></Contents>"),
		PAGE("<Contents><Key>a%zz</Key></Contents><EncodingType>url</EncodingType>")};
	static const char encoded[] = PAGE("<Contents><Key>a+b%2B%2fc</Key><Size>3</Size></Contents><CommonPrefixes><Prefix>d%C3%A4/</Prefix>"
					   "</CommonPrefixes><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
					   "<NextContinuationToken>1+2%3D</NextContinuationToken>");
	static const char plain[] = PAGE("<Contents><Key>a+b%2B&amp;</Key></Contents><Prefix>x</Prefix><IsTruncated>false</IsTruncated>");
	struct s3_page page;
	struct err err = {0};

	CHECK_INT(s3_page_parse(encoded, strlen(encoded), &page, &err), 0);
	CHECK_INT(page.n, 2);
	CHECK_STR(page.names[0].key, "a b+/c");
	CHECK_INT(page.names[0].is_prefix, 0);
	CHECK_STR(page.names[1].key, "d\xC3\xA4/");
	CHECK_INT(page.names[1].is_prefix, 1);
	CHECK_INT(page.is_truncated, 1);
	CHECK_STR(page.next, "1+2%3D");
	s3_page_release(&page);
	CHECK_INT(s3_page_parse(plain, strlen(plain), &page, &err), 0);
	CHECK_INT(page.n, 1);
	CHECK_STR(page.names[0].key, "a+b%2B&");
	CHECK(!page.is_truncated && !page.next);
	s3_page_release(&page);
	CHECK_INT(s3_page_parse("<ListBucketResult/>", 19, &page, &err), 0);
	CHECK_INT(page.n, 0);
	s3_page_release(&page);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		err_clear(&err);
		CHECK_INT(s3_page_parse(bad[i], strlen(bad[i]), &page, &err), -1);
		CHECK_INT(err.code, ERR_STORAGE);
	}
}

/* ---- replies ---- */

TEST(reply_fields)
{
	struct http_reply r = {0};
	char v[16];

	CHECK_INT(http_reply_field(&r, "etag", v, sizeof(v)), 0);
	buf_adds(&r.fields, "HTTP/1.1 200 OK\r\nETag:  \"abc\" \r\nX-Etag: no\r\nEmpty:\r\nLong: 0123456789012345678\r\netag:\t\"def\"\r\n\r\n");
	CHECK_INT(http_reply_field(&r, "etag", v, sizeof(v)), 1);
	CHECK_STR(v, "\"def\"");
	CHECK_INT(http_reply_field(&r, "EMPTY", v, sizeof(v)), 1);
	CHECK_STR(v, "");
	CHECK_INT(http_reply_field(&r, "long", v, sizeof(v)), 1);
	CHECK_STR(v, "012345678901234");
	CHECK_INT(http_reply_field(&r, "tag", v, sizeof(v)), 0);
	http_reply_release(&r);
}

TEST(verdicts)
{
	static const struct {
		enum http_outcome outcome;
		int status;
		const char *code;
		enum s3_verdict verdict;
	} cases[] = {
		{HTTP_REPLIED, 200, "", S3_DONE},
		{HTTP_REPLIED, 204, "", S3_DONE},
		{HTTP_REPLIED, 206, "", S3_DONE},
		{HTTP_REPLIED, 200, "InternalError", S3_AGAIN},
		{HTTP_REPLIED, 200, "InvalidPart", S3_REFUSED},
		{HTTP_REPLIED, 301, "PermanentRedirect", S3_REFUSED},
		{HTTP_REPLIED, 307, "TemporaryRedirect", S3_REFUSED},
		{HTTP_REPLIED, 400, "InvalidRequest", S3_REFUSED},
		{HTTP_REPLIED, 400, "RequestTimeout", S3_AGAIN},
		{HTTP_REPLIED, 400, "XAmzContentSHA256Mismatch", S3_AGAIN},
		{HTTP_REPLIED, 400, "ExpiredToken", S3_REFUSED},
		{HTTP_REPLIED, 403, "AccessDenied", S3_REFUSED},
		{HTTP_REPLIED, 403, "", S3_REFUSED},
		{HTTP_REPLIED, 404, "", S3_ABSENT},
		{HTTP_REPLIED, 404, "NoSuchKey", S3_ABSENT},
		{HTTP_REPLIED, 404, "NoSuchBucket", S3_REFUSED},
		{HTTP_REPLIED, 404, "NoSuchUpload", S3_REFUSED},
		{HTTP_REPLIED, 405, "MethodNotAllowed", S3_REFUSED},
		{HTTP_REPLIED, 408, "", S3_AGAIN},
		{HTTP_REPLIED, 409, "ConditionalRequestConflict", S3_AGAIN},
		{HTTP_REPLIED, 409, "OperationAborted", S3_AGAIN},
		{HTTP_REPLIED, 409, "BucketNotEmpty", S3_REFUSED},
		{HTTP_REPLIED, 412, "PreconditionFailed", S3_UNMET},
		{HTTP_REPLIED, 412, "", S3_UNMET},
		{HTTP_REPLIED, 416, "InvalidRange", S3_BEYOND},
		{HTTP_REPLIED, 429, "", S3_AGAIN},
		{HTTP_REPLIED, 500, "", S3_AGAIN},
		{HTTP_REPLIED, 501, "NotImplemented", S3_REFUSED},
		{HTTP_REPLIED, 502, "", S3_AGAIN},
		{HTTP_REPLIED, 503, "SlowDown", S3_AGAIN},
		{HTTP_REPLIED, 504, "", S3_AGAIN},
		{HTTP_LOST, 0, "", S3_AGAIN},
		{HTTP_LOST, 200, "", S3_AGAIN}, /* cut short */
		{HTTP_LOST, 403, "", S3_AGAIN},
		{HTTP_STOPPED, 200, "", S3_STOPPED},
		{HTTP_FAILED, 0, "", S3_REFUSED},
		{HTTP_FAILED, 200, "", S3_REFUSED},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int got = s3_judge(cases[i].outcome, cases[i].status, cases[i].code);

		if (got != (int)cases[i].verdict)
			printf("outcome %d, status %d, code \"%s\":\n", cases[i].outcome, cases[i].status, cases[i].code);
		CHECK_INT(got, cases[i].verdict);
	}
}

TEST(pauses)
{
	for (int k = 0; k < 3; k++) {
		double random = k * 0.4999, now = 1000, before = 0, pause;
		struct s3_retry r = {0};
		int n = 0;

		while ((pause = s3_retry_pause(&r, now, random)) >= 0) {
			CHECK(pause >= 0.05 && pause <= 2.0 && pause >= before);
			before = pause;
			now += pause + 0.01; /* and a failure that takes no time */
			n++;
		}
		CHECK(n >= 8 && n <= 20);
		CHECK(now - 1000 > 7.5 && now - 1000 < 10.5);
	}
	/* However long the first failure took, there is a second try; after a long second one, no third. */
	struct s3_retry slow = {0};

	CHECK(s3_retry_pause(&slow, 5000, 0.5) > 0);
	CHECK(s3_retry_pause(&slow, 5020, 0.5) < 0);
}

int main(void)
{
	RUN(sign_documented);
	RUN(presign_documented);
	RUN(encode);
	RUN(query);
	RUN(address);
	RUN(url);
	RUN(config);
	RUN(xml);
	RUN(error_reply);
	RUN(list_reply);
	RUN(reply_fields);
	RUN(verdicts);
	RUN(pauses);
	return TEST_RESULT();
}

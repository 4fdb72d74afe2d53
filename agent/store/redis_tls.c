#include "store/redis_tls.h"

#include <stdio.h>

#if REDIS_TLS

#include <arpa/inet.h>
#include <assert.h>
#include <hiredis/async.h>
#include <hiredis/hiredis_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct redis_tls {
	struct redis_tls_settings settings;
	pthread_mutex_t lock;
	SSL_CTX *context; /* under the lock; a connection has a reference of its own */
};

static const char *reason(void)
{
	const char *text = ERR_reason_error_string(ERR_peek_last_error());
	return text ? text : "no reason is known";
}

/* Keys with a passphrase: nobody is there to be asked. */
static int no_passphrase(char *out, int size, int writing, void *unused)
{
	(void)out;
	(void)size;
	(void)writing;
	(void)unused;
	return 0;
}

static bool load_ca(SSL_CTX *context, const char *ca)
{
	struct stat s;

	if (!ca[0])
		return SSL_CTX_set_default_verify_paths(context) == 1;
	bool folder = stat(ca, &s) == 0 && S_ISDIR(s.st_mode);
	return SSL_CTX_load_verify_locations(context, folder ? NULL : ca, folder ? ca : NULL) == 1;
}

static SSL_CTX *context_new(const struct redis_tls_settings *s, char *err, size_t err_size)
{
	ERR_clear_error();
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	if (!context) {
		snprintf(err, err_size, "OpenSSL cannot start: %s", reason());
		return NULL;
	}
	SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_default_passwd_cb(context, no_passphrase);
	if (!load_ca(context, s->ca))
		snprintf(err, err_size, "redis.tls_ca = \"%s\": %s", s->ca, reason());
	else if (s->cert[0] && SSL_CTX_use_certificate_chain_file(context, s->cert) != 1)
		snprintf(err, err_size, "redis.tls_cert = \"%s\": %s", s->cert, reason());
	else if (s->key[0] && SSL_CTX_use_PrivateKey_file(context, s->key, SSL_FILETYPE_PEM) != 1)
		snprintf(err, err_size, "redis.tls_key = \"%s\": %s", s->key, reason());
	else
		return context;
	SSL_CTX_free(context);
	return NULL;
}

struct redis_tls *redis_tls_new(
	const struct redis_tls_settings *settings, char *err, size_t err_size)
{
	struct redis_tls *t = calloc(1, sizeof *t);
	if (!t) {
		snprintf(err, err_size, "out of memory");
		return NULL;
	}
	t->settings = *settings;
	t->context = context_new(settings, err, err_size);
	if (!t->context) {
		free(t);
		return NULL;
	}
	pthread_mutex_init(&t->lock, NULL);
	return t;
}

void redis_tls_free(struct redis_tls *t)
{
	if (!t)
		return;
	SSL_CTX_free(t->context);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

bool redis_tls_reload(struct redis_tls *t, char *err, size_t err_size)
{
	SSL_CTX *fresh = context_new(&t->settings, err, err_size);
	if (!fresh)
		return false;
	pthread_mutex_lock(&t->lock);
	SSL_CTX *old = t->context;
	t->context = fresh;
	pthread_mutex_unlock(&t->lock);
	SSL_CTX_free(old);
	return true;
}

/* The name goes to the server (SNI, which is for names alone), and has to be in its certificate:
 * hiredis looks at neither. */
static bool expect(SSL *ssl, const char *name)
{
	unsigned char any[16];

	if (inet_pton(AF_INET, name, any) == 1 || inet_pton(AF_INET6, name, any) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

struct ssl_st *redis_tls_begin(struct redis_tls *t, struct redisAsyncContext *ac,
	const struct redis_address *address, char *why, size_t why_size, const char **hint)
{
	static const char prefix[] = "SSL_connect failed: ";
	const char *name = t->settings.name[0] ? t->settings.name : redis_address_name(address);

	ERR_clear_error();
	pthread_mutex_lock(&t->lock);
	SSL *ssl = SSL_new(t->context);
	pthread_mutex_unlock(&t->lock);
	if (ssl && expect(ssl, name) && redisInitiateSSL(&ac->c, ssl) == REDIS_OK)
		return ssl;
	/* It is hiredis' once that went well. */
	const char *text = ac->c.err ? ac->c.errstr : reason();
	if (strncmp(text, prefix, sizeof prefix - 1) == 0)
		text += sizeof prefix - 1;
	snprintf(why, why_size, "%s", text);
	*hint = ssl ? redis_tls_explain(ssl, why, why_size) : NULL;
	SSL_free(ssl);
	return NULL;
}

void redis_tls_enter(void)
{
	ERR_clear_error();
}

static const char *explain_certificate(long verified, char *why, size_t why_size)
{
	snprintf(why, why_size, "its certificate is refused: %s",
		X509_verify_cert_error_string(verified));
	switch (verified) {
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		return "set redis.tls_name to a name that is in it";
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
		return "set redis.tls_ca to the certificate of who signed it";
	default:
		return "see the certificate, and this machine's clock";
	}
}

/* What is no word of TLS (a reset, say) may have come after one that lies there unread: why the
 * server closes, it says before. */
static unsigned long last_error(SSL *ssl)
{
	unsigned long error = ERR_peek_last_error();
	char byte;

	if (error && ERR_GET_LIB(error) == ERR_LIB_SSL)
		return error;
	ERR_clear_error();
	(void)SSL_peek(ssl, &byte, 1);
	error = ERR_peek_last_error();
	return error && ERR_GET_LIB(error) == ERR_LIB_SSL ? error : 0;
}

const char *redis_tls_explain(struct ssl_st *ssl, char *why, size_t why_size)
{
	long verified = SSL_get_verify_result(ssl);

	if (verified != X509_V_OK)
		return explain_certificate(verified, why, why_size);
	unsigned long error = last_error(ssl);
	if (!error)
		return NULL;
	snprintf(why, why_size, "TLS: %s", reason());
	switch (ERR_GET_REASON(error)) {
#ifdef SSL_R_UNEXPECTED_EOF_WHILE_READING
	case SSL_R_UNEXPECTED_EOF_WHILE_READING:
		snprintf(why, why_size, "Server closed the connection");
		return NULL;
#endif
	case SSL_R_WRONG_VERSION_NUMBER:
		snprintf(why, why_size, "TLS: what answers does not speak it");
		return "name the port that does (tls-port), or leave redis.tls out";
	case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
	case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
		return "does it want a certificate of ours? set redis.tls_cert and redis.tls_key";
	case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
		return "it does not know who signed redis.tls_cert";
	default:
		return NULL;
	}
}

const char *redis_tls_version(void)
{
	return OpenSSL_version(OPENSSL_VERSION);
}

#else

struct redis_tls *redis_tls_new(const struct redis_tls_settings *s, char *err, size_t err_size)
{
	(void)s;
	snprintf(err, err_size, "redis.tls: this build has no TLS");
	return NULL;
}

void redis_tls_free(struct redis_tls *t)
{
	(void)t;
}

bool redis_tls_reload(struct redis_tls *t, char *err, size_t err_size)
{
	(void)t;
	(void)err;
	(void)err_size;
	return true;
}

struct ssl_st *redis_tls_begin(struct redis_tls *t, struct redisAsyncContext *ac,
	const struct redis_address *address, char *why, size_t why_size, const char **hint)
{
	(void)t;
	(void)ac;
	(void)address;
	*hint = NULL;
	snprintf(why, why_size, "this build has no TLS");
	return NULL;
}

void redis_tls_enter(void)
{
}

const char *redis_tls_explain(struct ssl_st *ssl, char *why, size_t why_size)
{
	(void)ssl;
	(void)why;
	(void)why_size;
	return NULL;
}

const char *redis_tls_version(void)
{
	return "no";
}

#endif

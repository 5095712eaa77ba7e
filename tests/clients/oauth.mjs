// Two libraries that verify access tokens strictly (RFC 9068), of which one introspects and revokes:
// `node oauth.mjs URL PASSWORD`.
import assert from "node:assert/strict";
import { auth } from "express-oauth2-jwt-bearer";
import * as oauth from "oauth4webapi";

const [url, password] = process.argv.slice(2);
const insecure = { [oauth.allowInsecureRequests]: true };

async function post(path, body, token) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(url + path, { method: "POST", headers, body: JSON.stringify(body) });
  assert.ok(answer.ok, `${path}: ${answer.status}`);
  return answer.json();
}

const signIn = () => post("/v1/auth/login", { username: "admin", password });
const session = await signIn();
const token = session.access_token;
const wanted = { name: "introspects", scopes: ["tokens:introspect"] };
const { key } = await post("/v1/api-keys", wanted, token);

// They find what they need by the address alone.
const found = await oauth.discoveryRequest(new URL(url), { algorithm: "oauth2", ...insecure });
const server = await oauth.processDiscoveryResponse(new URL(url), found);
assert.equal(server.issuer, url);

// An access token is accepted for its audience, and for no other.
const request = new Request(url, { headers: { Authorization: `Bearer ${token}` } });
const claims = await oauth.validateJwtAccessToken(server, request, url, insecure);
assert.deepEqual([claims.sub, claims.client_id], [session.user.id, "bt"]);
await assert.rejects(oauth.validateJwtAccessToken(server, request, "https://elsewhere", insecure));

for (const [audience, accepted] of [[url, true], ["https://elsewhere", false]]) {
  const verify = auth({ issuerBaseURL: url, audience, strict: true, tokenSigningAlg: "EdDSA" });
  // As much of Express's request as the middleware looks at.
  const headers = { host: "reports.example", authorization: `Bearer ${token}` };
  const get = (name) => headers[name.toLowerCase()];
  const asked = { method: "GET", protocol: "https", originalUrl: "/", query: {}, headers, get };
  asked.is = () => false;
  const refusal = await new Promise((next) => verify(asked, {}, next));
  assert.equal(refusal === undefined, accepted, String(refusal));
  if (accepted) assert.equal(asked.auth.payload.client_id, "bt");
}

// A key introspects as a client's secret, by HTTP Basic and in the form.
const client = { client_id: "reports: a+b" };
for (const authentication of [oauth.ClientSecretBasic(key), oauth.ClientSecretPost(key)]) {
  const introspect = async (text) =>
    oauth.processIntrospectionResponse(
      server,
      client,
      await oauth.introspectionRequest(server, client, authentication, text, insecure),
    );
  const other = await signIn();
  for (const text of [other.access_token, other.refresh_token]) {
    assert.equal((await introspect(text)).active, true);
  }
  const end = other.refresh_token;
  const ended = await oauth.revocationRequest(server, client, oauth.None(), end, insecure);
  await oauth.processRevocationResponse(ended);
  assert.deepEqual(await introspect(other.access_token), { active: false });
}
const wrong = oauth.ClientSecretBasic("bt_wrong");
const refused = await oauth.introspectionRequest(server, client, wrong, token, insecure);
assert.equal(refused.status, 401);
assert.equal((await refused.json()).code, "invalid_credentials");
assert.match(refused.headers.get("WWW-Authenticate"), /^Basic /);

// express-oauth2-jwt-bearer leaves a 404 unread, which would keep its connection and this process.
process.exit(0);

// A real OpenID provider for sso.rs. argv: the address of Keepwell's pages. Prints its issuer when it is ready; ends
// with its standard input.
//
// Who signs in, and how, says the test: by a query put behind the address of the interaction.
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const [pages] = process.argv.slice(2);
const server = createServer();
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
const issuer = `http://localhost:${server.address().port}`;

const common = {
  redirect_uris: [`${pages}/sso/callback`],
  response_types: ['code'],
  grant_types: ['authorization_code'],
  backchannel_logout_uri: `${pages}/sso/back-channel-logout`,
};
const provider = new Provider(issuer, {
  clients: [
    { ...common, client_id: 'public', token_endpoint_auth_method: 'none' },
    {
      ...common,
      client_id: 'signed',
      token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_signing_alg: 'EdDSA',
      jwks_uri: `${pages}/.well-known/jwks.json`,
    },
  ],
  acrValues: ['two-factors'],
  features: { devInteractions: { enabled: false }, backchannelLogout: { enabled: true } },
  pkce: { methods: ['S256'], required: () => true },
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  cookies: { keys: ['a test'] },
  findAccount: (ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  async loadExistingGrant(ctx) {
    const { client, session } = ctx.oidc;
    const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope('openid');
    await grant.save();
    return grant;
  },
});
const answer = provider.callback();
server.on('request', async (request, response) => {
  try {
    const url = new URL(request.url, issuer);
    if (url.pathname.startsWith('/interaction/')) {
      const login = { accountId: url.searchParams.get('sub') };
      if (url.searchParams.get('acr')) login.acr = url.searchParams.get('acr');
      await provider.interactionFinished(request, response, { login });
    } else if (url.pathname === '/test/logout') {
      const client = await provider.Client.find(url.searchParams.get('client'));
      await client.backchannelLogout(url.searchParams.get('sub'));
      response.end('done');
    } else {
      answer(request, response);
    }
  } catch (error) {
    console.error(error);
    response.statusCode = 500;
    response.end(String(error));
  }
});
process.stdin.on('end', () => process.exit(0)).resume();
console.log(issuer);

// fastify with @fastify/rate-limit.
// SETTINGS: {"fastify": 5, "rateLimit": 11, "options": options of the plugin}
const [, , descriptor, settings] = process.argv;
const { fastify, rateLimit, options } = JSON.parse(settings);
const app = require(`fastify-${fastify}`)();

const journal = [];

app.addHook("onResponse", async (request, reply) => {
  if (request.url !== "/-/journal") journal.push(`${Date.now() / 1000} ${reply.statusCode}\n`);
});
app.get("/-/journal", async (request, reply) => reply.type("text/plain").send(journal.join("")));
app.register(async (limited) => {
  await limited.register(require(`@fastify/rate-limit-${rateLimit}`), options);
  limited.get("/*", async () => ({}));
});

app.listen({ fd: Number(descriptor) });

// express with express-rate-limit. SETTINGS: {"version": 8, "limiters": [options of rateLimit]}
const express = require("express");

const [, , descriptor, settings] = process.argv;
const { version, limiters } = JSON.parse(settings);
const { rateLimit } = require(`express-rate-limit-${version}`);

const journal = [];
const app = express();

app.get("/-/journal", (request, response) => {
  response.type("text").send(journal.join(""));
});
app.use((request, response, next) => {
  response.on("finish", () => journal.push(`${Date.now() / 1000} ${response.statusCode}\n`));
  next();
});
for (const options of limiters) app.use(rateLimit(options));
app.use((request, response) => response.json({}));

app.listen({ fd: Number(descriptor) });

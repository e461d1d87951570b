'use strict'

// Checks webhooks with the npm packages standardwebhooks and svix: reads [{secret, headers, body}] from stdin, and says of
// each package how many it accepts, and how many it refuses once their body has been changed.

const letters = JSON.parse(require('fs').readFileSync(0, 'utf8'))

for (const name of ['standardwebhooks', 'svix']) {
  const { Webhook } = require(name)
  let accepted = 0
  let refused = 0

  for (const { secret, headers, body } of letters) {
    const webhook = new Webhook(secret)

    webhook.verify(body, headers)
    accepted++
    try {
      webhook.verify(body.replace('"overall":', '"overall":1'), headers)
    } catch {
      refused++
    }
  }
  console.log(`${name}: ${accepted} accepted, ${refused} refused`)
}

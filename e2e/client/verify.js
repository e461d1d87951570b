'use strict'

// Checks webhooks with the npm packages standardwebhooks and svix: reads [{secret, headers, body}] from stdin, and says of
// each package how many it accepts, and how many it would accept if their body had been changed.

const letters = JSON.parse(require('fs').readFileSync(0, 'utf8'))

for (const name of ['standardwebhooks', 'svix']) {
  const { Webhook } = require(name)
  const accepts = ({ secret, headers }, body) => {
    try {
      new Webhook(secret).verify(body, headers)
      return true
    } catch {
      return false
    }
  }
  const accepted = letters.filter((letter) => accepts(letter, letter.body))
  const changed = letters.filter((letter) => accepts(letter, letter.body.replace('"overall":', '"overall":1')))

  console.log(`${name}: ${accepted.length} accepted, ${changed.length} when changed`)
}

// A device with mqtt.js: node client.mjs PORT VERSION. What it has to do is in interop_run.py.
import mqtt from "mqtt"

const [port, version] = process.argv.slice(2).map(Number)
const options = {
  protocolVersion: version, clientId: `js-${version}`, clean: false, keepalive: 1, reconnectPeriod: 0,
  will: { topic: `gone/js-${version}`, payload: "bye", qos: 1, retain: false },
  properties: version === 5 ? { sessionExpiryInterval: 3600 } : undefined,
}
const found = { present: [], acknowledged: 0 }
const url = `mqtt://127.0.0.1:${port}`

async function come(more = {}) {
  const client = await new Promise((resolve, reject) => {
    const c = mqtt.connect(url, { ...options, ...more })
    c.once("connect", (connack) => { found.present.push(connack.sessionPresent); resolve(c) })
    c.once("error", reject)
  })
  return client
}

let client = await come()
await Promise.all(Array.from({ length: 300 }, (_, i) => client.publishAsync(`d/${i % 3}`, String(i), { qos: i % 3 }).then(() => found.acknowledged++)))
await client.publishAsync("d/large", Buffer.alloc(200000, "x"), { qos: 2 })
found.heard = await new Promise((resolve, reject) => {
  client.once("message", (topic, payload) => resolve(payload.toString()))
  client.subscribe("$tidegate/status", { qos: 0 }, (error) => error && reject(error))
})
found.refused = await new Promise((resolve) => client.subscribe("a/#", { qos: 1 }, (error, granted) => resolve(error ? String(error.message) : granted[0].qos)))
await new Promise((resolve) => setTimeout(resolve, 2500)) // its keep-alive is one second
found.alive = client.connected
await client.endAsync()
client = await come()
console.log(JSON.stringify(found))
process.exit(0) // without a goodbye
